"""The load generator for open and closed loops: one process, one thread, one epoll.

`job` is what callers use: a Job goes to a process of `python -m tests.load.generator` and a Result comes back. `engine`
sends, `connection` is one socket, `tally` counts, `system` asks the kernel. Must not import anything of the service.
"""
