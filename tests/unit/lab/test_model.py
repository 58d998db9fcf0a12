"""The record of a lab, and telling processes apart."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from lab import model, process
from lab.errors import LabError, NoSuchLab
from lab.model import Lab, Places


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    places = Places("t", tmp_path)
    lab = Lab(name="t", base="b", agent="a", config_file="/c")
    places.save(lab)
    assert places.load() == lab
    assert [path.name for path in places.directory.iterdir()] == ["lab.json"]
    assert model.names(tmp_path) == ["t"]


def test_no_lab_and_a_broken_record(tmp_path: Path) -> None:
    places = Places("t", tmp_path)
    with pytest.raises(NoSuchLab, match=r"there is no lab 't' \(labs: none\); start one with mxctl lab up"):
        places.load()
    places.directory.mkdir(parents=True)
    places.record.write_text('{"name": 1}')
    with pytest.raises(LabError, match="mxctl lab down --name t removes it"):
        places.load()


def test_namespaces_of_labs_cannot_be_mixed_up() -> None:
    assert Places("t").node_netns("head") == "mx-t"
    assert Places("t").node_netns("n1") == "mx-t-n1"


def test_a_process_is_known_by_number_and_start() -> None:
    own = process.identify(os.getpid())
    assert own is not None
    assert process.is_alive(own)
    assert not process.is_alive(own.model_copy(update={"start_time": own.start_time + 1}))
    assert not process.is_alive(None)


def test_a_signal_goes_to_the_very_process_only() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        there = process.identify(child.pid)
        assert there is not None
        process.send(there.model_copy(update={"start_time": there.start_time + 1}), signal.SIGKILL)
        assert not process.wait_gone(there, 0.1)
        process.send(there, signal.SIGKILL)
        assert process.wait_gone(there, 5)  # a zombie counts as gone
        child.wait(5)
        process.send(there, signal.SIGKILL)
    assert process.identify(child.pid) is None
