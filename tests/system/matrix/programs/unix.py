"""Unix sockets within the job: a listening one with a path, connections, and a pair."""

import os
import socket
import tempfile

from witness import steps

path = os.path.join(tempfile.mkdtemp(), "socket")
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
near, far = socket.socketpair()
if os.fork() == 0:
    standing, _ = listener.accept()
    while True:
        word = far.recv(64)
        standing.sendall(word)
        fresh, _ = listener.accept()
        fresh.sendall(word)
        fresh.close()
client = socket.socket(socket.AF_UNIX)
client.connect(path)


def check(n):
    word = b"%d" % n
    near.sendall(word)
    assert client.recv(64) == word
    with socket.socket(socket.AF_UNIX) as again:
        again.connect(path)
        assert again.recv(64) == word


steps(check)
