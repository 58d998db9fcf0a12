"""One line out of what apt, dpkg, pip and mmdebstrap say."""

import pytest

from clip.failures import explain


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (["E: Unable to locate package nosuch"], "UnknownPackage"),
        (["E: Package 'nosuch' has no installation candidate"], "UnknownPackage"),
        (["E: Couldn't find any package by glob 'nosuch.x'"], "UnknownPackage"),
        (["Err:1 http://127.0.0.1 trixie InRelease", "  Temporary failure resolving '127.0.0.1'"], "MirrorAway"),
        (["W: Failed to fetch http://127.0.0.1/x.deb  Connection timed out"], "MirrorAway"),
        (["E: The repository 'http://127.0.0.1 trixie Release' does not have a Release file."], "MirrorAway"),
        (["WARNING: Retrying after connection broken by NewConnectionError"], "MirrorAway"),
        (["E: You don't have enough free space in /var/cache/apt/archives/."], "DiskFull"),
        (["dpkg: error processing archive x (--unpack):", " cannot copy: failed to write (No space left on device)"], "DiskFull"),
        (["W: Failed to fetch http://127.0.0.1/x.deb", "Error writing to file - write (28: No space left on device)"], "DiskFull"),
        (["E: Sub-process /usr/bin/dpkg returned an error code (1)"], "BuildFailed"),
        ([], "BuildFailed"),
    ],
)
def test_reasons(said: list[str], reason: str) -> None:
    error = explain("mmdebstrap", 1, said)
    assert error.reason == reason
    assert "\n" not in str(error) and len(str(error)) < 600


def test_a_long_story_is_cut_at_its_beginning() -> None:
    assert str(explain("pip", 1, [*("x" * 80 for _ in range(20)), "the end"])).count("x") < 420
    assert "| the end; repair" in str(explain("pip", 1, ["x" * 900, "the end"]))
