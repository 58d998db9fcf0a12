"""TCP within the job: a listening socket, a standing connection over loopback, and a new one at each step."""

import os
import socket

from witness import steps

listener = socket.create_server(("127.0.0.1", 0))
address = listener.getsockname()
if os.fork() == 0:
    standing, _ = listener.accept()
    while True:
        word = standing.recv(64)
        standing.sendall(word)
        fresh, _ = listener.accept()
        fresh.sendall(word)
        fresh.close()
client = socket.create_connection(address)


def check(n):
    word = b"%d" % n
    client.sendall(word)
    assert client.recv(64) == word
    with socket.create_connection(address) as again:
        assert again.recv(64) == word


steps(check)
