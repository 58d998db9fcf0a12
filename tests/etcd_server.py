"""A real etcd for tests: on loopback, in a directory of its own, ended with the tests.

It writes without fsync: what is tested is the death of a process, not of a machine. Heartbeats are fast, so that it elects itself
at once and leases may be as short as 1 s. ``start`` must be called from the main thread: etcd is told to die with the thread that
started it, so that killed tests leave nothing behind.
"""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

START_SECONDS = 15.0
IMAGES = Path("/var/lib/mx/images")
OLDEST = (3, 5, 30)


def find_etcd() -> Path:
    """The etcd to test with: $MX_ETCD, else the newest image's, else the one in PATH. Raises FileNotFoundError."""
    named = os.environ.get("MX_ETCD")
    found_in_images = (path for depth in range(1, 4) for path in IMAGES.glob("*/" * depth + "usr/bin/etcd"))
    images = sorted(found_in_images, key=lambda path: path.stat().st_mtime, reverse=True)
    in_path = shutil.which("etcd")
    for found in (named, *images, in_path):
        if found and os.access(found, os.X_OK):
            return Path(found)
    raise FileNotFoundError("no etcd found: run scripts/setup, or let MX_ETCD name an etcd binary of 3.5.30 or later")


def check_version(binary: Path) -> None:
    """Raises RuntimeError for an etcd older than the oldest we support."""
    first = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout.split("\n")[0]
    version = first.removeprefix("etcd Version: ")
    if tuple(int(part) for part in version.split("-")[0].split(".")) < OLDEST:
        raise RuntimeError(f"{binary} is etcd {version}: run scripts/setup, or let MX_ETCD name one of 3.5.30 or later")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


PAUSED = 10.0  # seconds for all threads of etcd to stop


class EtcdServer:
    """One member. ``stop`` is polite, ``kill`` is not; ``restart`` comes back with the same data on the same port."""

    def __init__(self, *flags: str) -> None:
        self.binary = find_etcd()
        check_version(self.binary)
        self.directory = Path(tempfile.mkdtemp(prefix="mx-etcd-"))
        self.endpoint = f"127.0.0.1:{free_port()}"
        self._peer = f"127.0.0.1:{free_port()}"
        self._flags = flags
        self._scheme = "http"
        self._direct = _opener()
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def with_tls(cls, *, ca: Path, certificate: Path, key: Path, revoked: Path | None = None) -> "EtcdServer":
        """One that lets in clients with a certificate of ``ca`` only. Files in PEM; the certificate is for 127.0.0.1."""
        crl = ("--client-crl-file", str(revoked)) if revoked else ()
        server = cls(
            "--cert-file", str(certificate), "--key-file", str(key), "--trusted-ca-file", str(ca), "--client-cert-auth", *crl
        )
        server._scheme = "https"
        context = ssl.create_default_context(cafile=str(ca))
        context.load_cert_chain(certificate, key)
        server._direct = _opener(urllib.request.HTTPSHandler(context=context))
        return server

    def __enter__(self) -> "EtcdServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when it answers. Raises RuntimeError with the end of its log."""
        client, peer = f"{self._scheme}://{self.endpoint}", f"http://{self._peer}"
        arguments = [
            *("--name", "test", "--data-dir", str(self.directory / "data")),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"test={peer}"),
            *("--heartbeat-interval", "50", "--election-timeout", "500", "--log-level", "warn"),
            *("--grpc-keepalive-min-time", "500ms", "--unsafe-no-fsync"),
            *self._flags,
        ]
        with (self.directory / "log").open("ab") as log:
            command = ["setpriv", "--pdeathsig", "KILL", str(self.binary), *arguments]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self._wait_until_ready()

    def stop(self) -> None:
        """Ends it and removes its data."""
        self._end(signal.SIGTERM)
        shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self) -> None:
        """kill -9; the data stays."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """kill -9 and back."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Stops answering with all connections open, until ``resume``."""
        self._signal(signal.SIGSTOP)
        assert self._process is not None
        threads, end = Path(f"/proc/{self._process.pid}/task"), time.monotonic() + PAUSED
        while not all(_stands(thread) for thread in threads.iterdir()):  # until then one of them may answer yet
            if time.monotonic() > end:
                raise TimeoutError(f"etcd does not stop within {PAUSED} s")
            time.sleep(0.001)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def compact(self, revision: int) -> None:
        """Forgets all history before ``revision``."""
        self._post("/v3/kv/compaction", {"revision": revision})

    def _post(self, path: str, body: dict[str, object]) -> None:
        request = urllib.request.Request(f"{self._scheme}://{self.endpoint}{path}", data=json.dumps(body).encode())
        with self._direct.open(request, timeout=5) as answer:
            answer.read()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._healthy():
            if time.monotonic() > deadline or self._process is None or self._process.poll() is not None:
                tail = (self.directory / "log").read_text(errors="replace")[-2000:]
                self.stop()
                raise RuntimeError(f"etcd did not start on {self.endpoint}: {tail}")
            time.sleep(0.02)

    def _healthy(self) -> bool:
        try:
            with self._direct.open(f"{self._scheme}://{self.endpoint}/health", timeout=1) as answer:
                return bool(json.load(answer)["health"] == "true")
        except (OSError, ValueError):
            return False

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(number)
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=5)
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise RuntimeError("etcd is not running")
        self._process.send_signal(number)


def _stands(thread: Path) -> bool:
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0] in "TtZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _opener(*handlers: urllib.request.BaseHandler) -> urllib.request.OpenerDirector:
    """Past any proxy of the environment: the server is on this machine."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), *handlers)
