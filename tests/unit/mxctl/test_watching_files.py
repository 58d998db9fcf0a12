"""apply --watch: edits are noticed however an editor writes them."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from watchdog.events import FileModifiedEvent, FileMovedEvent

from crds.node import Node
from mxctl.core.editing import concerns, watch_files
from mxctl.core.failures import tell
from store.store import Store
from tests.unit.mxctl.terminal import Terminal

SECONDS = 20
NODE = """apiVersion: mx/v1
kind: Node
metadata: {name: n1}
spec:
  mac: 52:54:00:77:00:%s
"""


def write(path: Path) -> None:
    path.write_text("new")


def replace(path: Path) -> None:
    fresh = path.with_name(".fresh")
    fresh.write_text("new")
    fresh.rename(path)


@pytest.mark.parametrize("edit", [write, replace, Path.unlink])
@pytest.mark.parametrize("watched", ["set", "set/inner/a.yaml"])
async def test_an_edit_is_noticed(tmp_path: Path, watched: str, edit: Callable[[Path], None]) -> None:
    path = tmp_path / "set" / "inner" / "a.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("old")
    async with watch_files([str(tmp_path / watched)]) as edits, asyncio.timeout(SECONDS):
        edit(path)
        async for _ in edits:
            return


def test_a_neighbour_is_of_no_interest() -> None:
    assert concerns(FileModifiedEvent("/set/a.yaml"), {Path("/set/a.yaml")})
    assert concerns(FileMovedEvent("/set/.a", "/set/a.yaml"), {Path("/set/a.yaml")})
    assert not concerns(FileModifiedEvent("/set/b.yaml"), {Path("/set/a.yaml")})


def test_edits_are_applied_until_ctrl_c_and_bad_ones_are_told(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(NODE % "01")
    told = asyncio.Event()

    def tell_and_note(error: BaseException) -> list[str]:
        told.set()
        return list(tell(error))

    monkeypatch.setattr("mxctl.apply.tell", tell_and_note)

    async def edit(store: Store) -> None:
        await mac_is(store, "52:54:00:77:00:01")
        path.write_text(NODE % "0x")
        await asyncio.wait_for(told.wait(), SECONDS)
        path.write_text(NODE % "02")
        await mac_is(store, "52:54:00:77:00:02")
        signal.raise_signal(signal.SIGINT)

    said = terminal.run("apply", "--watch", "-f", str(path), meanwhile=edit)
    assert said.out.startswith("node/n1 created\nnode/n1 configured\n")
    assert f"{path}:5: spec.mac" in said.err


async def mac_is(store: Store, mac: str) -> None:
    async with asyncio.timeout(SECONDS):
        while True:
            nodes = await store.list(Node)
            if any(node.spec.mac == mac for node in nodes.items):
                return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("words", [["-f", "-"], ["-f", "c.yaml", "--dry-run=server"]])
def test_what_cannot_be_watched_is_refused(terminal: Terminal, words: list[str]) -> None:
    said = terminal.run("apply", "--watch", *words)
    assert said.code == 1
    assert "--watch needs files" in said.err
