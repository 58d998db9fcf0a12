"""Speeds: equal machines come out equal whatever noise there was, others differ, and what people declare holds."""

import pytest

from crds.load import SystemFacts
from reconciler.controllers.speeds import step

from .house import House

XEON = {"system": SystemFacts(processor="Xeon")}


async def known(house: House) -> dict[str, float]:
    from reconciler.controllers.speeds import speeds

    await house.advance(1)
    return speeds(house.world)


async def test_machines_that_are_alike_have_one_speed() -> None:
    async with House("n1", "n2", "n3", "n4") as house:
        for name, speed in {"n1": 0.91, "n2": 1.0, "n3": 1.12, "n4": 3.0}.items():
            house.agents[name].beat(speed=speed, **XEON)
        found = await known(house)
        assert found["n1"] == found["n2"] == found["n3"] == step(1.06) and found["n4"] == pytest.approx(3.0, rel=0.06)


async def test_other_processors_have_their_own_and_garbage_is_none() -> None:
    async with House("n1", "n2", "n3") as house:
        house.agents["n1"].beat(speed=1.0, **XEON)
        house.agents["n2"].beat(speed=2.0, system=SystemFacts(processor="Epyc"))
        house.agents["n3"].beat(speed=-5.0)
        assert await known(house) == {"n1": 1.0, "n2": step(2.0), "n3": 1.0}


@pytest.mark.parametrize("speed", [0.3, 0.97, 1.0, 1.04, 2.2])
def test_a_step_is_near(speed: float) -> None:
    assert step(speed) == pytest.approx(speed, rel=0.05)
