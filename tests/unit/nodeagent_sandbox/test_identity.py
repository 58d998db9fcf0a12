"""As whom criu dumps a tree, and which limits can be set."""

import os
import resource
from collections.abc import Callable

import pytest

from nodeagent.shim import identity
from nodeagent.shim.answers import Refused

Ids = tuple[int, int]


@pytest.fixture
def tree(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Processes 10, 11, … that belong to these users; we are root with or without the capability."""

    def make(*users: list[Ids], capable: bool) -> None:
        table = dict(enumerate(users, 10))

        def ids_of(pid: int) -> list[Ids]:
            if pid not in table:
                raise FileNotFoundError(pid)
            return table[pid]

        monkeypatch.setattr(identity, "ids_of", ids_of)
        monkeypatch.setattr(identity, "may_raise_limits", lambda: capable)
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(os, "getegid", lambda: 0)

    return make


ROOT, ALICE = [(0, 0)] * 3, [(1000, 1001)] * 3
HALF = [(1000, 1000), (0, 1000), (0, 1000)]


@pytest.mark.parametrize(
    ("users", "capable", "expected"),
    [
        ([ROOT, ROOT], False, None),
        ([ALICE, ALICE], False, (1000, 1001)),
        ([ALICE], True, None),
        ([ROOT, ALICE], True, None),
        ([], False, None),
    ],
)
def test_dumped_as(tree: Callable[..., None], users: list[list[Ids]], capable: bool, expected: Ids | None) -> None:
    tree(*users, capable=capable)
    assert identity.dump_as([10 + n for n in range(len(users))]) == expected
    assert identity.dump_as([*(10 + n for n in range(len(users))), 99]) == expected, "one that has ended counts nothing"


@pytest.mark.parametrize("users", [[ROOT, ALICE], [HALF]])
def test_several_users_without_the_capability(tree: Callable[..., None], users: list[list[Ids]]) -> None:
    tree(*users, capable=False)
    with pytest.raises(Refused, match=r"several users, 0:.*process 1\d.*CAP_SYS_RESOURCE"):
        identity.dump_as([10, 11])


def test_command_line() -> None:
    assert identity.argv_as(None, ["criu", "dump", "-t", "2"]) == ["criu", "dump", "-t", "2"]
    words = identity.argv_as((1000, 1001), ["criu", "dump", "-t", "2"])
    assert words[:3] == ["setpriv", "--reuid=1000", "--regid=1001"]
    assert words[-5:] == ["criu", "--unprivileged", "dump", "-t", "2"]


def test_own_ids() -> None:
    assert identity.ids_of(os.getpid()) == list(zip(os.getresuid(), os.getresgid(), strict=True))


def test_a_limit_that_may_not_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "may_raise_limits", lambda: False)

    def refuse(kind: int, limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1024, 4096))
    with pytest.raises(Refused, match=r"limit nofile=8192: this node allows 4096 at most .* CAP_SYS_RESOURCE: ask for less"):
        identity.set_limit("nofile", 8192)


@pytest.mark.parametrize(("value", "expected"), [(77, 77), (-1, resource.RLIM_INFINITY)])
def test_limits_are_soft_and_hard(monkeypatch: pytest.MonkeyPatch, value: int, expected: int) -> None:
    seen: list[object] = []
    monkeypatch.setattr(resource, "setrlimit", lambda *words: seen.append(words))
    identity.set_limit("locks", value)
    identity.set_limit("nofile", value)
    assert seen == [(10, (expected, expected)), (resource.RLIMIT_NOFILE, (expected, expected))]
