"""``python -m clip.power --endpoints HOST:PORT``: switches machines as is asked for in etcd. mx-clip does the same."""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from functools import partial
from pathlib import Path

from clip.power.credentials import DIRECTORY
from clip.power.drivers import make_driver
from clip.power.switchboard import Switchboard, on_machines
from store.etcd import EtcdKV
from store.objects import utcnow


def main() -> int:
    """Runs until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="mx-power", description="Switches machines on and off as is asked for.")
    parser.add_argument("--endpoints", required=True, metavar="HOST:PORT[,…]", help="etcd's client endpoints")
    parser.add_argument("--credentials", type=Path, default=DIRECTORY, help="directory of the files that nodes name")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_serve([part.strip() for part in arguments.endpoints.split(",")], arguments.credentials))
    return 0


async def _serve(endpoints: list[str], credentials: Path) -> None:
    serving = asyncio.current_task()
    assert serving is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    kv = EtcdKV.connect(endpoints)
    try:
        await Switchboard(kv, partial(make_driver, credentials=credentials), utcnow, on_machines).run()
    finally:
        await kv.close()


if __name__ == "__main__":
    sys.exit(main())
