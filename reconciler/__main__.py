"""``python -m reconciler --endpoints HOST:PORT[,HOST:PORT] --tls DIR``."""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys

from reconciler.daemon import serve
from store.etcd_channel import Tls
from store.options import add_options, endpoints_of, tls_of


def main() -> int:
    """Runs until SIGTERM or SIGINT; then resigns and returns 0."""
    parser = argparse.ArgumentParser(prog="mx-reconciler", description="Decides what runs where. Any number may run; one leads.")
    add_options(parser)
    parser.add_argument("--verbose", action="store_true", help="log debug messages too")
    arguments = parser.parse_args()
    endpoints, tls = endpoints_of(parser, arguments.endpoints), tls_of(parser, arguments, "reconciler")
    logging.basicConfig(
        level=logging.DEBUG if arguments.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    asyncio.run(_until_told(endpoints, tls))
    return 0


async def _until_told(endpoints: list[str], tls: Tls | None) -> None:
    serving = asyncio.create_task(serve(endpoints, tls))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


if __name__ == "__main__":
    sys.exit(main())
