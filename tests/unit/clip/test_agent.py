"""The agent layer: named by our source, with entry scripts that look right in ps."""

from pathlib import Path

import pytest

from clip import agent, systemd
from nodeagent import launch


def test_digest_follows_source_and_base(project: Path) -> None:
    before = agent.digest(project, "base-1")
    assert agent.digest(project, "base-1") == before
    assert agent.digest(project, "base-2") != before
    (project / "crds/inner/code.py").write_text("# other")
    assert agent.digest(project, "base-1") != before


def test_what_is_not_source_does_not_count(project: Path) -> None:
    before = agent.digest(project, "base-1")
    (project / "crds/__pycache__").mkdir()
    (project / "crds/__pycache__/code.pyc").write_bytes(b"x")
    (project / "crds/.code.py.swp").write_text("editor")
    (project / "lab").mkdir()
    (project / "lab/x.py").write_text("not on nodes")
    assert agent.digest(project, "base-1") == before


def test_a_moved_file_counts(project: Path) -> None:
    before = agent.digest(project, "base-1")
    (project / "crds/inner/code.py").rename(project / "crds/inner/moved.py")
    assert agent.digest(project, "base-1") != before


def test_killing_daemons_by_their_words_spares_the_shim() -> None:
    _, flags, _ = agent.ENTRIES["mx-shim"]
    line = f"/usr/bin/python3 {flags} /usr/bin/mx-shim"
    assert not any(word in line for word in ("nodeagent", "reconciler", "etcd"))


def test_entry_scripts_are_python_that_runs_the_module() -> None:
    for name, (module, flags, dependencies) in agent.ENTRIES.items():
        script = agent.entry_script(module, flags, dependencies)
        compile(script, name, "exec")
        assert script.startswith(f"#!/usr/bin/python3 {flags}\n")
        assert ("deps" in script) == dependencies


def test_systemd_finds_what_the_initramfs_wrote() -> None:
    plan = '[{"name": "guard", "command": ["mx-guard"]}, {"name": "nodeagent", "command": ["mx-nodeagent", "--node", "n1"]}]'
    for text in systemd.UNITS.values():
        [line] = [line for line in text.splitlines() if line.startswith("ExecStart=")]
        *_, script, service = line.split()
        assert script == f"/{agent.LIBRARY}/nodeagent/launch.py" and Path(launch.__file__).match("nodeagent/launch.py")
        assert launch.command_of(plan, service)[0] == f"mx-{service}"
        assert "KillMode=process\n" in text, "jobs outlive the daemon"
    with pytest.raises(KeyError):
        launch.command_of(plan, "other")
