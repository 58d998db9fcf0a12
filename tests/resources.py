"""Objects for tests, in one line each."""

from typing import Any

from crds.codec import parse_documents
from crds.document import Document
from crds.job import Job, JobSpec
from crds.meta import Metadata
from crds.node import Node, NodeSpec


def job(name: str = "w", namespace: str | None = None, **spec: Any) -> Job:
    return Job(metadata=Metadata(name=name, namespace=namespace), spec=JobSpec(**({"command": ["true"]} | spec)))


def node(name: str = "n1", **spec: Any) -> Node:
    return Node(metadata=Metadata(name=name), spec=NodeSpec(**spec))


def documents(text: str, source: str = "c.yaml") -> list[Document]:
    return parse_documents(text, source)


def document(text: str) -> Document:
    (only,) = documents(text)
    return only
