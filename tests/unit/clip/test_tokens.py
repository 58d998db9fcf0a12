"""One-time tokens: for one machine, one key and some minutes; what lies on the disk is worth nothing to a thief."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from clip.tokens import BOOT_SECONDS, MOST, TokenRefused, Tokens
from crds.join import Proof

MAC, OTHER = "52:54:00:77:00:01", "52:54:00:77:00:02"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Book(Tokens):
    """With a clock that stands still."""

    def __init__(self, directory: Path) -> None:
        self.now = NOON
        super().__init__(directory, clock=lambda: self.now)


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "tokens")


def test_a_machine_that_boots_is_known_by_its_token(book: Book) -> None:
    text = book.for_boot(MAC.upper(), "n1")
    token = book.use(text, MAC, "key")
    assert (token.node, token.mac, token.proof, token.key) == ("n1", MAC, Proof.BOOTED, "key")


def test_a_lost_answer_is_asked_for_again_with_the_same_key_only(book: Book) -> None:
    text = book.for_boot(MAC, "n1")
    book.use(text, MAC, "key")
    assert book.use(text, MAC, "key").node == "n1"
    with pytest.raises(TokenRefused, match="another key"):
        book.use(text, MAC, "thief")


def test_a_token_is_for_its_machine_only(book: Book) -> None:
    text = book.for_boot(MAC, "n1")
    with pytest.raises(TokenRefused, match="another machine"):
        book.use(text, OTHER, "key")
    assert book.use(text, MAC, "key").node == "n1"


def test_of_many_boot_answers_one_counts(book: Book) -> None:
    texts = [book.for_boot(MAC, "n1") for _ in range(3)]
    others = book.for_boot(OTHER, "n2")
    book.use(texts[1], MAC, "key")
    for text in (texts[0], texts[2]):
        with pytest.raises(TokenRefused, match="not known"):
            book.use(text, MAC, "key")
    assert book.use(others, OTHER, "key").node == "n2"


def test_who_asks_again_and_again_fills_no_disk(book: Book, tmp_path: Path) -> None:
    texts = [book.for_boot(MAC, "n1") for _ in range(3 * MOST)]
    assert len(list((tmp_path / "tokens").iterdir())) == MOST
    assert book.use(texts[-1], MAC, "key").node == "n1"


def test_a_token_ends(book: Book) -> None:
    text = book.for_boot(MAC, "n1")
    book.now = NOON + timedelta(seconds=BOOT_SECONDS)
    with pytest.raises(TokenRefused, match="ended at 12:15:00"):
        book.use(text, MAC, "key")
    assert book.prune() == 0  # it is gone


def test_ended_ones_are_removed(book: Book, tmp_path: Path) -> None:
    assert book.prune() == 0
    book.for_boot(MAC, "n1", seconds=5)
    (tmp_path / "tokens/any.broken").write_bytes(b"{")
    kept = book.for_person("n9", seconds=60)
    book.now += timedelta(seconds=10)
    assert book.prune() == 2
    assert book.use(kept, OTHER, "key").proof is Proof.GIVEN


def test_a_person_gets_one_for_any_machine(book: Book) -> None:
    assert book.use(book.for_person(), MAC, "key").node is None
    for seconds in (0.0, -5.0, 1e6):
        with pytest.raises(ValueError, match="lives 1 second to 24 hours"):
            book.for_person(seconds=seconds)


@pytest.mark.parametrize("mac", ["", "../../etc/x", "52:54:00:77:00", "52:54:00:77:00:0g", "52-54-00-77-00-01", "*"])
def test_what_is_no_mac_never_becomes_a_file_name(book: Book, mac: str) -> None:
    with pytest.raises(ValueError, match="is no MAC"):
        book.for_boot(mac, "n1")
    with pytest.raises(ValueError, match="is no MAC"):
        book.use("x", mac, "key")


def test_no_secret_lies_on_the_disk(book: Book, tmp_path: Path) -> None:
    text = book.for_boot(MAC, "n1")
    (file,) = (tmp_path / "tokens").iterdir()
    assert text not in file.name + file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert len({book.for_boot(MAC, "n1") for _ in range(50)}) == 50
