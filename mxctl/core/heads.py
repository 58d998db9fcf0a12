"""Talking to the head over HTTPS: to mx-join, as a person with a certificate."""

from typing import Any

from mxctl.core.failures import Failure
from nodeagent.joining import OK, Head, ask
from store.context import Context, enter_netns

PORT = 8443


def head_of(context: Context) -> str:
    """Where mx-join answers unless somebody says otherwise: beside etcd's first member."""
    return f"{context.endpoints[0].rpartition(':')[0]}:{PORT}"


def ask_as_person(context: Context, head: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer to one question. Failure with the head's reason; StoreError."""
    if context.files is None:
        raise Failure(f"context {context.name} has no certificate: name ca, certificate and key in it")
    ca, certificate, key = context.files
    if context.netns is not None:
        enter_netns(context.netns)
    try:
        wish = {name: value for name, value in body.items() if value is not None}
        status, answer = ask(Head(head, ""), ca.read_bytes(), path, wish, (certificate, key))
    except OSError as error:
        raise Failure(f"head {head}: does not answer ({error}): does mx-join run there? say where with --head") from error
    if status != OK:
        raise Failure(f"head {head}: {answer.get('reason', status)}")
    return answer
