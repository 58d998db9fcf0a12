"""How the tasks on one node share its cores."""

from collections.abc import Sequence


def shares(cores: float, tasks: Sequence[int], weights: Sequence[float]) -> list[float]:
    """Cores each job gets: in proportion to tasks x weight, no task more than one core, nothing left over that is wanted."""
    wanted = sum(tasks)
    if wanted <= cores:
        return [float(n) for n in tasks]
    if len(set(weights)) <= 1:
        return [n * cores / wanted for n in tasks]
    given = [0.0] * len(tasks)
    open_ = [i for i, n in enumerate(tasks) if n]
    while open_:
        total = sum(tasks[i] * weights[i] for i in open_)
        full = [i for i in open_ if cores * weights[i] >= total]
        if not full:
            for i in open_:
                given[i] = cores * tasks[i] * weights[i] / total
            break
        for i in full:
            given[i] = float(tasks[i])
            cores -= tasks[i]
        open_ = [i for i in open_ if given[i] == 0.0]
    return given
