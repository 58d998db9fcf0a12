"""The process that switches a lab's machines when they are asked for, as mx-clip does on a real head.

It runs on the host, where the machines are processes, in a control group of the lab; so it is found and ended with the lab.
"""

import subprocess
import sys

from clip.image import project_dir
from lab.cgroups import Groups
from lab.model import Places

GROUP = "power"
_ENTER = 'while [ "$1" != -- ]; do echo $$ > "$1"; shift; done; shift; exec "$@"'


def start(places: Places) -> None:
    """Starts it and returns at once. What it says is in power.log, beside the lab's record."""
    groups = Groups(places.lab, GROUP)
    groups.create(None, None)
    entrances = [str(path) for path in groups.entrances]
    command = ["sh", "-c", _ENTER, "sh", *entrances, "--", sys.executable, "-m", "lab.power", places.lab]
    with (places.directory / "power.log").open("ab") as log:
        subprocess.Popen(command, cwd=project_dir(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
