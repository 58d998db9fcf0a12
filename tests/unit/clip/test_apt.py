"""Reading the building machine's apt configuration."""

import pytest

from clip import apt

TARGETS = """\
http://127.0.0.2/debian-security/ bookworm-security
http://127.0.0.1/debian/ bookworm
http://127.0.0.3/debian/ bookworm
"""


def test_the_mirror_is_that_of_the_hosts_own_release() -> None:
    assert apt.choose_mirror(TARGETS, "bookworm") == "http://127.0.0.1/debian"
    assert apt.choose_mirror(TARGETS, "trixie") is None
    assert apt.choose_mirror("", "bookworm") is None


@pytest.mark.parametrize(
    ("text", "codename"),
    [
        ("ID=debian\nVERSION_CODENAME=trixie\nX=1\n", "trixie"),
        ('VERSION_CODENAME="bookworm"\n', "bookworm"),
        ("ID=other\n", ""),
    ],
)
def test_host_codename(text: str, codename: str) -> None:
    assert apt.host_codename(text) == codename


def test_proxies_that_are_set_are_taken_over_and_nothing_else() -> None:
    dump = """\
Acquire::http "";
Acquire::http::Proxy "http://proxy.test:3142";
Acquire::http::Proxy::127.0.0.1 "DIRECT";
Acquire::https::CaInfo "";
Acquire::AllowInsecureRepositories "0";
DPkg::Post-Invoke:: "rm x";
"""
    assert apt.select_proxies(dump) == (
        'Acquire::http::Proxy "http://proxy.test:3142";',
        'Acquire::http::Proxy::127.0.0.1 "DIRECT";',
    )
