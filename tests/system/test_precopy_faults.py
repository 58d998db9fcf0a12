"""Moves by pre-copy between real machines, whose kernel can, with a fault at every boundary.

Nobody reaches into a machine that booted over the network. So an image brings the faults along: its agents look at the job's name,
which says at which moment what is to happen, and do it to themselves, once.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.moments import DESTINATION, SOURCE, STOP_ONLY
from tests.system.commands import Terminal
from tests.system.labs import lab_name
from tests.system.test_machines import BUILD_SECONDS, SECONDS, Rack, until, up

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

MOMENTS = (*(moment for moment in SOURCE if moment not in STOP_ONLY), "leave.round", *DESTINATION, "arrive.round")
CRIU = ("leave.round", "Freezing.after", "Restoring.after")
"""Where criu runs right after the boundary."""
TRIALS = [
    *((fault, moment) for moment in MOMENTS for fault in ("agent-killed", "agent-stopped")),
    *(("criu-killed", moment) for moment in CRIU),
]
FAULTS = f'''
import os, re, signal, subprocess, sys
MOMENTS = {MOMENTS!r}
STOP = "sleep 10; kill -CONT $AGENT"
CRIU = """
for i in $(seq 200); do
    for process in /proc/[0-9]*; do
        [ "$(cat $process/comm)" = criu ] && kill -9 ${{process#/proc/}} && exit
    done
    sleep 0.02
done"""
def run(script):
    subprocess.Popen(["sh", "-c", script], env={{**os.environ, "AGENT": str(os.getpid())}}, start_new_session=True)
async def at(self, moment, copy):
    named = re.fullmatch(r"(.*)-at-([0-9]+)", copy.name)
    if not named or MOMENTS[int(named[2])] != moment:
        return
    try:
        os.close(os.open("/shared/struck-" + copy.name, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    if named[1] == "agent-killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif named[1] == "agent-stopped":
        run(STOP)
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        run(CRIU)
if any("mx-nodeagent" in word for word in sys.orig_argv):
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
    sys.path[:0] = ["/usr/lib/mx", "/usr/lib/mx/deps"]
    from nodeagent.hooks import NoHooks
    NoHooks.at = at
'''
PLACE = "/usr/lib/python3/dist-packages"


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rack]:
    """Two machines that run the image with the faults."""
    directory: Path = tmp_path_factory.mktemp("mx")
    terminal, file = Terminal(directory / "config"), directory / "objects.yaml"
    files = [
        {"path": f"{PLACE}/mxfaults.py", "content": FAULTS},
        {"path": f"{PLACE}/mxfaults.pth", "content": "import mxfaults\n"},
    ]
    spec = {"kernel": "linux-image-cloud-amd64", "files": files}
    image = {"apiVersion": "mx/v1", "kind": "Image", "metadata": {"name": "faults"}, "spec": spec}
    node = {"apiVersion": "mx/v1", "kind": "Node", "spec": {"image": "faults"}}
    nodes = [{**node, "metadata": {"name": name}} for name in ("n1", "n2")]
    try:
        found = up(terminal, lab_name("machfaults"), "--machines", "2")
        file.write_text(json.dumps(image))
        found.mxctl("apply", "-f", str(file))
        found.mxctl("image", "build", "faults", seconds=BUILD_SECONDS)
        file.write_text("\n---\n".join(json.dumps(each) for each in nodes))
        found.mxctl("apply", "-f", str(file))
        found.mxctl("rollout", "image", "faults", "--max-unavailable", "2", "--deadline", f"{SECONDS}s", seconds=3 * SECONDS)
        yield found
    finally:
        terminal.mxctl("lab", "down", "--name", lab_name("machfaults"), ok=False)


@pytest.mark.parametrize(("fault", "moment"), TRIALS)
def test_a_fault_at_a_boundary_of_a_move_by_precopy(rack: Rack, fault: str, moment: str) -> None:
    """Exactly one copy goes on, where the Migration says, and has left no number out."""
    job = f"{fault}-at-{MOMENTS.index(moment)}"
    rack.count(job, "n1", 8)
    try:
        said = rack.mxctl("migrate", job, "n2", "--mode", "pre-copy", "--wait", "--timeout", "5m", ok=False, seconds=SECONDS)
        until(lambda: (rack.places.shared / f"struck-{job}").exists(), f"{fault} at {moment}; {said}", 30)
        for name in ("n1", "n2"):
            rack.ready(name)
        rack.mxctl("wait", f"job/{job}", "--for=condition=Running", "--timeout=300s", seconds=SECONDS)
        rack.goes_on(job)
        [move] = [each for each in json.loads(rack.mxctl("get", "migrations", "-o", "json"))["items"] if each["spec"]["job"] == job]
        assert rack.where(job) == ("n2" if move["status"]["phase"] == "Succeeded" else "n1"), move["status"]
    finally:
        rack.mxctl("delete", "job", job, ok=False)
