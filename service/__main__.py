"""Runs the command line: `python -m service` is the same as `tasks-service`."""

from service.operations.cli import main

if __name__ == "__main__":
    main()
