"""Sizes as firmware writes them down."""

import pytest

from clip.service.smbios import cores, memory

GIB = 1 << 30


@pytest.mark.parametrize(
    ("modules", "large", "found"),
    [
        ("0004,,,", ",,,", GIB),
        ("0040,0040,0000,", "00000000,00000000,00000000,", 32 * GIB),
        ("ff7f,", "00000100,", 64 * GIB),
        ("ff7f", "", 0),
        ("0082", "", 512 << 10),
        ("ffff,0004", "", GIB),
        ("ff7f", "ffffffff", 0),
        ("zz,04,000400", "", 0),
        ("", "", 0),
    ],
)
def test_modules_are_added_up(modules: str, large: str, found: int) -> None:
    assert memory(modules, large) == found


def test_cores_are_added_up() -> None:
    assert cores("08,08") == 16 and cores("01,") == 1 and cores("ff") == 0 and cores("") == 0
