"""/etc/passwd and its kin with the users of an image in them. Pure: text in, text out."""

from collections.abc import Mapping, Sequence

from clip.errors import UNKNOWN_ACCOUNT, ImageError
from crds.image import ImageUser

PASSWD, GROUP, SHADOW, GSHADOW = "etc/passwd", "etc/group", "etc/shadow", "etc/gshadow"
FILES = (PASSWD, GROUP, SHADOW, GSHADOW)
MODES = {PASSWD: 0o644, GROUP: 0o644, SHADOW: 0o640, GSHADOW: 0o640}

Texts = Mapping[str, str]
"""File -> its text, for each of FILES."""


def with_users(texts: Texts, users: Sequence[ImageUser]) -> dict[str, str]:
    """The files with the users added, in the order they are declared. ImageError naming the user that cannot be."""
    lines = {file: [line for line in texts[file].splitlines() if line] for file in FILES}
    for user in users:
        _add_user(lines, user)
    for user in users:  # afterwards: a group may be that of a later user
        for group in user.groups:
            _join(lines, user, group)
    return {file: "".join(f"{line}\n" for line in found) for file, found in lines.items()}


def number_of(text: str, word: str, what: str) -> int:
    """The number of a user or group, by the text of passwd or group; a number is taken as it is. ImageError."""
    if word.isdigit():
        return int(word)
    for line in text.splitlines():
        fields = line.split(":")
        if fields[0] == word:
            return int(fields[2])
    raise ImageError(f"node image: the image has no {what} {word}; declare it in spec.users, or write its number", UNKNOWN_ACCOUNT)


def _add_user(lines: dict[str, list[str]], user: ImageUser) -> None:
    for line in lines[PASSWD]:
        name, _, uid = line.split(":")[:3]
        if name == user.name or uid == str(user.uid):
            raise ImageError(
                f"node image: user {user.name} ({user.uid}) cannot be added: there is {name} ({uid}); take another name and uid",
                UNKNOWN_ACCOUNT,
            )
    gid = user.uid if user.gid is None else user.gid
    if user.gid is None:
        _add_group(lines, user.name, gid)
    lines[PASSWD].append(f"{user.name}:x:{user.uid}:{gid}::{user.directory}:{user.shell}")
    lines[SHADOW].append(f"{user.name}:*:19700:0:99999:7:::")  # no password fits; keys do


def _add_group(lines: dict[str, list[str]], name: str, gid: int) -> None:
    for line in lines[GROUP]:
        known, _, number = line.split(":")[:3]
        if known == name or number == str(gid):
            raise ImageError(
                f"node image: group {name} ({gid}) cannot be added: there is {known} ({number}); say gid: {number}, "
                "or take another name and number",
                UNKNOWN_ACCOUNT,
            )
    lines[GROUP].append(f"{name}:x:{gid}:")
    lines[GSHADOW].append(f"{name}:*::")


def _join(lines: dict[str, list[str]], user: ImageUser, group: str) -> None:
    found = False
    for file in (GROUP, GSHADOW):
        for index, line in enumerate(lines[file]):
            fields = line.split(":")
            if fields[0] == group:
                members = [member for member in fields[3].split(",") if member]
                lines[file][index] = ":".join((*fields[:3], ",".join(dict.fromkeys((*members, user.name)))))
                found = True
    if not found:
        raise ImageError(f"node image: user {user.name}: the image has no group {group}; correct spec.users", UNKNOWN_ACCOUNT)
