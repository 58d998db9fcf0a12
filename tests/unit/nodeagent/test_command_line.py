"""The command line, room for images, and what an agent finds out about its machine."""

from pathlib import Path

import pytest

from nodeagent import facts
from nodeagent.__main__ import parse
from nodeagent.errors import MoveFailed
from nodeagent.space import check_room, images_need


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


def test_room_is_asked_for_before_the_freeze(tmp_path: Path) -> None:
    plenty = 1 << 50
    check_room(tmp_path / "images", 1000, restored=True, node_free=plenty)
    with pytest.raises(MoveFailed, match="no room for images"):
        check_room(tmp_path / "images", plenty, restored=False, node_free=plenty)
    free = images_need(1000)
    check_room(tmp_path / "images", 1000, restored=False, node_free=free)
    with pytest.raises(MoveFailed, match="no memory"):
        check_room(tmp_path / "images", 1000, restored=True, node_free=free)
