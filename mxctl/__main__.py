"""``mxctl``, also as ``python -m mxctl``."""

import sys


def main() -> None:
    """Ends the process with the command's exit code."""
    try:
        from mxctl.cli import cli  # late: Ctrl-C while this is read ends with 130 too, not with a traceback

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
