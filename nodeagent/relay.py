"""mx-relay: encrypts the connection by which a job's memory follows it. One at either end, between the wire and criu.

    mx-relay server|client WIRE INNER CA CERTIFICATE KEY ORGANISATION PEER        WIRE, INNER: descriptors, INNER is criu's

It shakes hands with the relay of the node PEER, each showing a certificate of the authority, and then lives on by itself in a
session of its own: the death of an agent must not cut a job from its memory. Exit code 0 of what was started says that it stands,
otherwise one line on stderr says why it does not. It ends when either side hangs up, once all that was said before is passed on.

It exists because criu's own TLS cannot be used on a connection that it is given (criu 4.2.1 then dies at the first page).
Standard library only, as it starts on the way into a move.
"""

import os
import select
import socket
import ssl
import sys
from typing import Any

HANDSHAKE_SECONDS = 10.0
PIECE = 1 << 18
MOST_HELD = 1 << 20
"""Bytes that wait for a side that does not read."""
WAITS = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)


def secure(wire: socket.socket, role: str, ca: str, certificate: str, key: str) -> ssl.SSLSocket:
    """After the handshake. Raises OSError (SSLError is one)."""
    server = role == "server"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # names are those of nodes, and compared below
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if server:
        context.num_tickets = 0
    context.load_verify_locations(ca)
    context.load_cert_chain(certificate, key)
    wire.settimeout(HANDSHAKE_SECONDS)
    return context.wrap_socket(wire, server_side=server)


def check_peer(sock: ssl.SSLSocket, organisation: str, peer: str) -> None:
    """Raises PermissionError when it is not that node."""
    certificate: dict[str, Any] = dict(sock.getpeercert() or {})
    subject = {key: value for part in certificate.get("subject", ()) for key, value in part}
    name, of = subject.get("commonName"), subject.get("organizationName")
    if (of, name) != (organisation, peer) or ("DNS", peer) not in certificate.get("subjectAltName", ()):
        raise PermissionError(f"its certificate says {of}/{name}, not {organisation}/{peer}")


class Way:
    """One direction: what was read at one side and waits to be written at the other."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self.held = bytearray()
        self.ended = False
        """Nothing more comes from the source."""

    @property
    def over(self) -> bool:
        """All that came has been passed on."""
        return self.ended and not self.held

    def pump(self) -> bool:
        """Reads and writes what can be at once; whether anything could. Raises OSError when the sink is gone."""
        moved = False
        while not self.ended and len(self.held) < MOST_HELD:
            try:
                data = self.source.recv(PIECE)
            except WAITS:
                break
            except OSError:
                data = b""
            self.ended = not data
            self.held += data
            moved = True
        while self.held:
            try:
                sent = self.sink.send(memoryview(self.held)[:PIECE])
            except WAITS:
                break
            del self.held[:sent]
            moved = True
        return moved


def pass_on(wire: ssl.SSLSocket, inner: socket.socket) -> None:
    """Until either side hangs up."""
    wire.setblocking(False)
    inner.setblocking(False)
    ways = (Way(wire, inner), Way(inner, wire))
    poller = select.poll()
    try:
        while not any(way.over for way in ways):
            moved = [way.pump() for way in ways]
            if any(moved):
                continue
            for sock, way_in, way_out in ((wire, ways[0], ways[1]), (inner, ways[1], ways[0])):
                wanted = select.POLLIN if len(way_in.held) < MOST_HELD and not way_in.ended else 0
                poller.register(sock, wanted | (select.POLLOUT if way_out.held else 0))
            poller.poll()
    except OSError:
        return  # a side is gone: so are we, and the other side learns it


def main(role: str, wire_number: str, inner_number: str, ca: str, certificate: str, key: str, organisation: str, peer: str) -> int:
    """What was started ends with the handshake; its child goes on."""
    try:
        wire = secure(socket.socket(fileno=int(wire_number)), role, ca, certificate, key)
        check_peer(wire, organisation, peer)
    except OSError as error:
        print(f"pages: TLS with node/{peer}: {error}", file=sys.stderr)
        return 1
    if os.fork():
        return 0
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    pass_on(wire, socket.socket(fileno=int(inner_number)))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
