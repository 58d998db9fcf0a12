"""Files are cut back to the length they had, and nothing of them is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nodeagent import rollback


def test_what_is_cut_off_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "out"
    file.write_text("before" + "after")
    assert rollback.roll_back(str(tmp_path), [(str(file), 6)]) == {"cut": [[str(file), 5, str(tmp_path / "1-out")]]}
    assert file.read_text() == "before"
    assert (tmp_path / "1-out").read_text() == "after"
    assert rollback.roll_back(str(tmp_path), [(str(file), 6)]) == {"cut": []}, "done again it does nothing"
    assert (tmp_path / "1-out").read_text() == "after"


def test_two_files_of_one_name(tmp_path: Path) -> None:
    files = [tmp_path / "a/x", tmp_path / "b/x"]
    for file in files:
        file.parent.mkdir()
        file.write_text(f"0{file.parent.name}")
    answer = rollback.roll_back(str(tmp_path), [(str(file), 1) for file in files])
    assert [Path(kept).read_text() for _, _, kept in answer["cut"]] == ["a", "b"]


@pytest.mark.parametrize(("content", "message"), [("x", "is shorter than at the checkpoint: 1 bytes"), (None, "No such file")])
def test_what_cannot_be_undone(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "out").write_text(content)
    assert message in rollback.roll_back(str(tmp_path), [(str(tmp_path / "out"), 6)])["error"]


def test_directories_are_left_alone(tmp_path: Path) -> None:
    assert "error" in rollback.roll_back(str(tmp_path), [(str(tmp_path), 0)])


def run(user: tuple[int, int], file: Path) -> dict[str, Any]:
    request = {"user": [*user, []], "keep": str(file.parent), "files": [[str(file), 2]]}
    program = [sys.executable, "-ISE", rollback.__file__]
    done = subprocess.run(program, input=json.dumps(request), capture_output=True, text=True, check=True, timeout=30)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_as_a_program(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("12345")
    assert run((os.geteuid(), os.getegid()), tmp_path / "out")["cut"][0][1] == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_it_may_do_no_more_than_the_user(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("12345")
    assert "Permission denied" in run((1234, 5678), tmp_path / "out")["error"]
    assert (tmp_path / "out").read_text() == "12345"
