"""What keeps a job from being moved, found before the move is tried.

``scene`` reads what the kernel says of a job's processes; each other file looks at that picture for one family of obstacles and
is pure. criu has the last word: what is foreseen here is tested against it (tests/system/matrix).
"""

from nodeagent.preflight.look import Preflight

__all__ = ["Preflight"]
