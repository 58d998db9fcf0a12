"""A matrix of ones and its square, by the threads of the BLAS library; the sum is known."""

import numpy as np
from witness import steps

SIZE = 64
matrix = np.ones((SIZE, SIZE))


def check(n):
    assert float((matrix @ matrix).sum()) == SIZE**3
    matrix[n % SIZE, 0] = 1.0


steps(check)
