"""What a machine under QMP does: the same suite for the fake and for a real QEMU (tests/system)."""

from clip.power.qmp import QmpDriver
from crds.power import PowerState


async def switches(driver: QmpDriver) -> None:
    """On, off and on again, each of them twice; and a reset from either state."""
    await driver.on()
    assert await driver.status() == PowerState.ON
    for _ in range(2):
        await driver.off()
        assert await driver.status() == PowerState.OFF
    for _ in range(2):
        await driver.on()
        assert await driver.status() == PowerState.ON
    await driver.reset()
    assert await driver.status() == PowerState.ON
    await driver.off()
    await driver.boot_from_network()
    await driver.reset()
    assert await driver.status() == PowerState.ON
