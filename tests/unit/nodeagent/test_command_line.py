"""The command line, and what an agent finds out about its machine."""

from pathlib import Path

import pytest

from nodeagent import facts
from nodeagent.__main__ import parse


def test_three_words_are_enough() -> None:
    options = parse(["--node", "n1", "--endpoints", "10.0.0.1:2379", "--insecure"])
    assert (options.state, options.run, options.shared, options.port) == (
        Path("/var/lib/mx/agent"),
        Path("/run/mx"),
        Path("/shared"),
        7950,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--node", "n1"],
        ["--node", "n1", "--endpoints", "x"],
        ["--node", "n1", "--endpoints", "x", "--insecure", "--tls", "/tls"],
        ["--node", "n1", "--endpoints", "x", "--insecure", "--port", "many"],
    ],
)
def test_a_wrong_command_line_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2 and "mx-nodeagent" in capsys.readouterr().err


def test_the_boot_id_stays_until_the_tmpfs_goes(tmp_path: Path) -> None:
    first = facts.boot_id(tmp_path / "run")
    assert first == facts.boot_id(tmp_path / "run")
    assert first != facts.boot_id(tmp_path / "after-reboot")
