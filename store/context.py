"""Where mxctl finds its cluster: a file of contexts, like kubeconfig, and how to connect to one of them.

The file is MXCONFIG, else ~/.config/mx/config:

    contexts:
    - {name: rack, endpoints: ["10.0.0.1:2379"], ca: /root/mx/ca.crt, certificate: /root/mx/me.crt, key: /root/mx/me.key}
    - {name: lab-t, endpoints: ["10.77.0.1:2379"], netns: mx-t, shared: /var/lib/mx/labs/t/shared, ca: …, certificate: …, key: …}
    currentContext: lab-t

A lab's etcd is reachable from inside the lab's network namespace only, so connecting may mean entering it.
"""

import ctypes
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field, ValidationError

from crds.meta import Model
from store.errors import Invalid, NotFound

if TYPE_CHECKING:
    from store.etcd import EtcdKV

NAMED_NAMESPACES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000


class Context(Model):
    """One cluster."""

    name: str
    """What --context takes."""
    endpoints: list[str] = Field(min_length=1)
    """etcd's addresses, host:port."""
    netns: str | None = None
    """Named network namespace to enter first; unset for a cluster on the network."""
    shared: str | None = None
    """Where this machine sees the nodes' /shared; unset when it does not."""
    ca: str | None = None
    """File of the authority that etcd's and the agents' certificates come from, PEM; unset when they run without TLS."""
    certificate: str | None = None
    """File of the certificate that proves to etcd and to agents who we are, PEM."""
    key: str | None = None
    """File of its key, PEM."""

    @property
    def files(self) -> tuple[Path, Path, Path] | None:
        """Authority, certificate, key; None without TLS. Invalid when one is named without the others."""
        named = [self.ca, self.certificate, self.key]
        if not any(named):
            return None
        if not all(named):
            raise Invalid(
                f"context {self.name}: ca, certificate and key belong together: name all three in {config_file()}, or none"
            )
        ca, certificate, key = (Path(each or "") for each in named)
        return ca, certificate, key


class Contexts(Model):
    """The whole file."""

    contexts: list[Context] = Field(default_factory=list)
    """All clusters, each name once."""
    current_context: str | None = None
    """The one to use when none is asked for."""

    def find(self, name: str | None) -> Context:
        """The context of this name, or the current one; NotFound with what to do next."""
        known = ", ".join(context.name for context in self.contexts) or "none"
        wanted = name or self.current_context
        if wanted is None:
            raise NotFound(f"no current context (known: {known}); start a lab with mxctl lab up, or pass --context NAME")
        for context in self.contexts:
            if context.name == wanted:
                return context
        raise NotFound(f"context {wanted!r} is not in {config_file()} (known: {known}); choose another with --context")

    def put(self, context: Context) -> None:
        """Adds it, or replaces the one of its name, and makes it the current one."""
        self.contexts = [*(other for other in self.contexts if other.name != context.name), context]
        self.current_context = context.name

    def remove(self, name: str) -> None:
        """Takes it out; the current one then is the last of the others. No error when it is not there."""
        self.contexts = [other for other in self.contexts if other.name != name]
        if self.current_context == name:
            self.current_context = self.contexts[-1].name if self.contexts else None


def config_file() -> Path:
    """MXCONFIG, else ~/.config/mx/config."""
    chosen = os.environ.get("MXCONFIG")
    return Path(chosen).absolute() if chosen else Path.home() / ".config/mx/config"


def load(path: Path | None = None) -> Contexts:
    """The contexts of the file; none when there is no file. Invalid, naming the file and the field."""
    path = path or config_file()
    try:
        return Contexts.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except FileNotFoundError:
        return Contexts()
    except yaml.YAMLError as error:
        raise Invalid(f"{path}: broken YAML ({' '.join(str(error).split())}); repair or remove the file") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "(all)"
        raise Invalid(f"{path}: {field}: {first['msg']}; repair or remove the file") from error


def save(contexts: Contexts, path: Path | None = None) -> None:
    """Replaces the file as a whole, readable by its owner only."""
    path = path or config_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    data: dict[str, Any] = contexts.to_data()
    fresh.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    fresh.chmod(0o600)
    fresh.rename(path)


@contextmanager
def changing(path: Path | None = None) -> Iterator[Contexts]:
    """Read, change, write, while no other process does: ``with changing() as contexts: contexts.put(...)``.

    A file with no context left is removed, and the directory with it when it is empty then.
    """
    path = path or config_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        contexts = load(path)
        yield contexts
        if contexts.contexts:
            save(contexts, path)
        else:
            path.unlink(missing_ok=True)
    finally:
        os.close(directory)


def current(name: str | None = None) -> Context:
    """The context of this name, or the current one. NotFound, Invalid."""
    return load().find(name)


def enter_netns(name: str) -> None:
    """Moves the calling thread, and the threads it starts from now on, into a named network namespace. NotFound, Invalid."""
    path = NAMED_NAMESPACES / name
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns is there from Python 3.12 on
    try:
        with path.open("rb") as stream:
            if libc.setns(stream.fileno(), _CLONE_NEWNET) == -1:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
    except FileNotFoundError as error:
        raise NotFound(f"network namespace {name} is not there: the lab is down; start it with mxctl lab up") from error
    except OSError as error:
        raise Invalid(f"network namespace {name}: cannot be entered ({error.strerror}); run as root, e.g. with sudo") from error


async def connect(context: Context, *, timeout: float = 5.0) -> "EtcdKV":
    """A connection to the context's etcd, from inside its network namespace where it has one.

    The calling thread stays in that namespace: gRPC makes its sockets when it likes, from threads it starts when it likes.
    ``timeout`` in seconds ends each call. Nothing connects before the first call. NotFound, Invalid.
    """
    if context.netns is not None:
        enter_netns(context.netns)
    from store.etcd import EtcdKV  # late: gRPC is slow to import and must not start a thread before the namespace is entered
    from store.etcd_channel import Tls

    tls = Tls(*context.files) if context.files else None
    return EtcdKV.connect(context.endpoints, timeout=timeout, tls=tls)
