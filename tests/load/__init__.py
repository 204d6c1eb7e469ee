"""The load-test harness: how fast the service is, what a request costs, and how it compares. `python -m tests.load`."""
