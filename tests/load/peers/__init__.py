"""The same four operations, written as others would: what the service is compared with."""
