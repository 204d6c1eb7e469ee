"""Runs the command line: `tasks-service`, the same as `python -m service`."""

from service.signals import stop


def main() -> None:
    stop.install()
    # Only now, since it takes 0.4 s, in which a signal would end Python with a traceback.
    from service.operations import cli

    cli.main()


if __name__ == "__main__":
    main()
