"""``mx-join``: admits machines and signs their certificates. Runs on the head, the only one that has the authority's key."""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path

from clip.authority import NODE_DAYS, Authority
from clip.errors import ClipError
from clip.join.membership import Membership
from clip.join.office import Cluster, Office
from clip.join.web import JOIN_PORT, serve, server_context
from clip.registry import Registry
from clip.tokens import TOKENS, Tokens
from store.errors import StoreError
from store.etcd import EtcdKV
from store.etcd_channel import Tls
from store.options import CERTIFICATES, add_options, endpoints_of, tls_of
from store.rights import EtcdRights

log = logging.getLogger("mx-join")

AUTHORITY = Path("/var/lib/mx/authority")
PRUNE_SECONDS = 300.0


def parser() -> argparse.ArgumentParser:
    """Our command line."""
    parser = argparse.ArgumentParser(prog="mx-join", description="Admits machines to the cluster and signs their certificates.")
    add_options(parser)
    parser.add_argument("--address", required=True, help="our address in the machines' network")
    parser.add_argument("--port", type=int, default=JOIN_PORT, help="(default: %(default)s)")
    parser.add_argument("--authority", type=Path, default=AUTHORITY, help="its key and certificate (default: %(default)s)")
    parser.add_argument("--tokens", type=Path, default=TOKENS, help="hashes of the tokens (default: %(default)s)")
    parser.add_argument("--days", type=float, default=NODE_DAYS, help="life of a node's certificate (default: %(default)s)")
    revoked = "list of worthless certificates that we keep for etcd's --client-crl-file"
    parser.add_argument("--revoked", type=Path, metavar="FILE", help=revoked)
    parser.add_argument("--shared", default="", metavar="SERVER:/PATH", help="what whoever joins mounts at /shared")
    parser.add_argument("--verbose", action="store_true", help="say more")
    return parser


async def run(options: argparse.Namespace, endpoints: list[str], tls: Tls | None) -> None:
    """Until SIGTERM or SIGINT."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    authority = Authority.open(options.authority, "cluster")
    certificates = options.tls or CERTIFICATES
    kv, tokens = EtcdKV.connect(endpoints, tls=tls), Tokens(options.tokens)
    registry = Registry(kv, EtcdRights(kv.channel), authority, days=options.days, revoked=options.revoked)
    office = Office(kv, registry, tokens, Cluster(options.endpoints, options.shared))
    runner = await serve(office, server_context(certificates), options.address, options.port)
    log.info("machines join at %s:%d; the authority's fingerprint is %s", options.address, options.port, authority.fingerprint)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(Membership(kv, registry).run())
            group.create_task(_prune(tokens))
    finally:
        await runner.cleanup()
        await kv.close()


async def _prune(tokens: Tokens) -> None:
    while True:
        await asyncio.to_thread(tokens.prune)
        await asyncio.sleep(PRUNE_SECONDS)


def main() -> int:
    """0 after a signal, 1 with one line for what stopped it."""
    known = parser()
    options = known.parse_args()
    endpoints, tls = endpoints_of(known, options.endpoints), tls_of(known, options, "clip")
    level = logging.DEBUG if options.verbose else logging.INFO
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname).1s %(name)s: %(message)s")
    failed = 0
    try:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(run(options, endpoints, tls))
    except* (ClipError, StoreError, OSError) as errors:
        failed = 1
        for error in errors.exceptions:
            print(f"mx-join: {error}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
