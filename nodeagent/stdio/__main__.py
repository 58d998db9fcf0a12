"""``mx-stdio NAME``: NAME is for people who look at the list of processes."""

import json
import os
import sys

from nodeagent.stdio.loop import Loop


def main() -> int:
    """The command's exit code."""
    with open(0, encoding="utf-8") as file:
        order = json.load(file)
    null = os.open("/dev/null", os.O_RDWR)
    assert null == 0, "standard input was closed with the order"
    os.dup2(null, 2)
    return Loop(order).run()


if __name__ == "__main__":
    sys.exit(main())
