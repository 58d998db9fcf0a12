"""A pool's worth of processes and pipes: each number goes to a worker and comes back squared."""

import multiprocessing

from witness import steps


def serve(pipe):
    while True:
        pipe.send(pipe.recv() ** 2)


if __name__ == "__main__":
    pipes = []
    for _ in range(3):
        near, far = multiprocessing.Pipe()
        multiprocessing.get_context("fork").Process(target=serve, args=(far,), daemon=True).start()
        pipes.append(near)

    def check(n):
        for pipe in pipes:
            pipe.send(n)
        assert [pipe.recv() for pipe in pipes] == [n * n] * 3

    steps(check)
