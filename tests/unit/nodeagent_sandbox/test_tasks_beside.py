"""Which processes belong to a job, when somebody runs programs beside it."""

from pathlib import Path

from nodeagent.tasks import without


def process(proc: Path, pid: int, parent: int, inner: int) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "status").write_text(f"Name:\tx\nPPid:\t{parent}\nNSpid:\t{pid}\t{inner}\n")


def test_programs_beside_the_job_are_left_out_with_all_below_them(tmp_path: Path) -> None:
    for pid, parent, inner in ((101, 100, 2), (102, 101, 3), (103, 100, 4), (104, 103, 5), (105, 104, 6)):
        process(tmp_path, pid, parent, inner)
    assert without([101, 102, 103, 104, 105, 999], [4], 100, tmp_path) == [101, 102]
    assert without([101, 102, 103], [], 100, tmp_path) == [101, 102, 103]
    assert without([101, 102, 103], [3], 100, tmp_path) == [101, 102, 103], "a number of the job's own is no program beside it"
