"""``mxctl``, also as ``python -m mxctl``."""

from mxctl.cli import cli


def main() -> None:
    """Ends the process with the command's exit code."""
    cli.main()


if __name__ == "__main__":
    main()
