"""Runs the command line: `tasks-service`, the same as `python -m service`."""

import gc

from service.signals import stop


def main() -> None:
    stop.install()
    # What is imported stays. At the usual threshold of 700 the collector went through it again and again: a sixth of
    # the time.
    gc.set_threshold(50_000)
    # Only now, since it takes some time, in which a signal would end Python with a traceback.
    from service.operations import cli

    cli.main()


if __name__ == "__main__":
    main()
