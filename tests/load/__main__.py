"""`python -m tests.load`: see `--help`. The command line itself is cli.py, which needs the extra `load`."""

import sys

OURS = ("service", "tests")


def main() -> None:
    try:  # importing takes a second or more, in which Ctrl-C is no traceback either
        from tests.load.cli import cli
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in OURS:
            raise
        sys.exit(f"python -m tests.load needs {package}, which the extra `load` installs: pip install -e '.[load]'")
    cli(prog_name="python -m tests.load")


if __name__ == "__main__":
    main()
