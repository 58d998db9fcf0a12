"""``python -m reconciler --endpoints HOST:PORT[,HOST:PORT]``."""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys

from reconciler.daemon import serve


def main() -> int:
    """Runs until SIGTERM or SIGINT; then resigns and returns 0."""
    parser = argparse.ArgumentParser(prog="mx-reconciler", description="Decides what runs where. Any number may run; one leads.")
    parser.add_argument("--endpoints", required=True, metavar="HOST:PORT[,…]", help="etcd's client endpoints")
    parser.add_argument("--verbose", action="store_true", help="log debug messages too")
    arguments = parser.parse_args()
    endpoints = [endpoint.strip() for endpoint in arguments.endpoints.split(",") if endpoint.strip()]
    if not endpoints:
        parser.error("--endpoints names no endpoint: write HOST:PORT, several separated by commas")
    logging.basicConfig(
        level=logging.DEBUG if arguments.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    asyncio.run(_until_told(endpoints))
    return 0


async def _until_told(endpoints: list[str]) -> None:
    serving = asyncio.create_task(serve(endpoints))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


if __name__ == "__main__":
    sys.exit(main())
