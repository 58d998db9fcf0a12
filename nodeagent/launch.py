"""Becomes one of the node's services: ``launch.py nodeagent``. For systemd's units; other nodes have a first process of ours.

Runs on the image's Python without any package.
"""

import json
import os
import sys
from pathlib import Path

PLAN = Path("/etc/mx/services.json")


def command_of(plan: str, name: str) -> list[str]:
    """The command line of a service, from the text of services.json. KeyError when there is none of that name."""
    commands: dict[str, list[str]] = {entry["name"]: entry["command"] for entry in json.loads(plan)}
    return commands[name]


def main() -> None:
    """Does not return."""
    name = sys.argv[1]
    try:
        command = command_of(PLAN.read_text(encoding="utf-8"), name)
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"mx: service {name} is not in {PLAN} ({error!r}): boot the machine again")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
