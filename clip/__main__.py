"""``python -m clip``: builds the node image when it is not there, prints its digest and layers. scripts/setup calls it."""

import sys

from clip import image
from clip.errors import ClipError
from clip.progress import reporting, silent


def main() -> int:
    """0, 1 after one line on stderr, or 130 after Ctrl-C."""
    try:
        wanted, _ = image.wanted()
        if image.is_built(wanted):
            built = image.ensure(silent)
        else:
            with reporting("node image", image.PHASES) as report:
                built = image.ensure(report)
    except ClipError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"{built.digest} {built.lower}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
