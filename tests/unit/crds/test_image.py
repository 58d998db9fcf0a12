"""Image: what may be asked for, and what its status answers."""

from typing import Any

import pytest
from pydantic import ValidationError

from crds.image import Building, Image, ImageSpec, ImageStatus, Revision
from crds.meta import set_condition

NOW = "2026-01-01T00:00:00Z"


def revision(number: int, digest: str, **more: Any) -> Revision:
    fields = {"layers": ["agent-a", "base-b"], "boot": "boot-c", "kernel": "6.12", "built": NOW, "recipe": "r"} | more
    return Revision.model_validate({"number": number, "digest": digest} | fields)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"files": [{"path": "etc/motd"}]}, "no path of a file"),
        ({"files": [{"path": "/etc/../x"}]}, "no path of a file"),
        ({"files": [{"path": "/etc/"}]}, "no path of a file"),
        ({"files": [{"path": "/etc/passwd"}]}, "spec.users"),
        ({"files": [{"path": "/usr/lib/mx/x"}]}, "made by mx itself"),
        ({"files": [{"path": "/etc/mx/image"}]}, "made by mx itself"),
        ({"files": [{"path": "/etc/x", "mode": 420}]}, "in quotes"),
        ({"files": [{"path": "/etc/x", "mode": "rw"}]}, "pattern"),
        ({"files": [{"path": "/etc/x"}, {"path": "/etc/x"}]}, "path /etc/x is there twice"),
        ({"users": [{"name": "ann", "uid": 0}]}, "greater than"),
        ({"users": [{"name": "a:b", "uid": 1}]}, "pattern"),
        ({"users": [{"name": "a", "uid": 5}, {"name": "b", "uid": 5}]}, "uid 5 is there twice"),
        ({"users": [{"name": "a", "uid": 5, "sshKeys": ["-----BEGIN PRIVATE KEY-----"]}]}, "pattern"),
        ({"users": [{"name": "a", "uid": 5, "shell": "/bin/sh:x"}]}, "no path of a file"),
        ({"kernelArguments": ["quiet splash"]}, "pattern"),
        ({"kernelArguments": ["ip=dhcp"]}, "mx itself"),
        ({"kernel": "Linux Image"}, "pattern"),
        ({"packages": ["x;y"]}, "pattern"),
        ({"init": "upstart"}, "minimal"),
    ],
)
def test_what_cannot_be_built_is_refused_when_it_is_written(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ImageSpec.model_validate(spec)


def test_a_file_that_only_begins_like_a_reserved_one_is_free() -> None:
    assert ImageSpec.model_validate({"files": [{"path": "/etc/mxtools"}, {"path": "/bootstrap"}]}).files


def test_the_status_knows_revisions_by_number_and_by_what_nodes_report() -> None:
    status = ImageStatus(revisions=[revision(1, "aa"), revision(2, "bb"), revision(3, "aa", rollbackOf=1)], current=3)
    current, newest = status.current_revision, status.of_digest("aa")
    assert current is not None and current.number == 3 and current.rollback_of == 1
    assert newest is not None and newest.number == 3
    assert status.numbered(4) is None and status.of_digest("cc") is None and ImageStatus().current_revision is None


def test_columns_tell_how_far_it_is() -> None:
    state = {column.title: column.text for column in Image.COLUMNS}
    image = Image.model_validate({"metadata": {"name": "x"}})
    assert (state["STATE"](image), state["REVISION"](image), state["DIGEST"](image)) == ("-", "-", "-")
    image.status.building = Building.model_validate({"phase": "unpacking", "fraction": 0.4, "since": NOW})
    assert state["STATE"](image) == "Building 40%"
    image.status.building = None
    image.status.revisions, image.status.current = [revision(1, "aa")], 1
    image.status.conditions = set_condition([], "Built", False, "MirrorAway", "…", revision(1, "aa").built)
    assert (state["STATE"](image), state["REVISION"](image), state["DIGEST"](image)) == ("MirrorAway", "1", "aa")
