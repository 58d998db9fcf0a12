"""``mx-clip``: the boot service. Runs on the head."""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path

from clip.authority import fingerprint_of
from clip.service.config import HTTP_PORT, RUN, TFTP, Config
from clip.service.daemon import Clip
from clip.table import Revision
from clip.tokens import TOKENS
from store.etcd import EtcdKV
from store.etcd_channel import Tls
from store.options import add_options, endpoints_of, tls_of


def parse(arguments: list[str]) -> tuple[Config, list[str], Tls | None, bool]:
    """What we are told: our own matters, etcd's endpoints, who we are to it, whether to say more."""
    parser = argparse.ArgumentParser(
        prog="mx-clip", description="Answers machines that boot, and keeps DHCP and NFS in line with it."
    )
    add_options(parser)
    parser.add_argument("--server", required=True, metavar="ADDRESS", help="our address in the machines' network")
    parser.add_argument("--interface", required=True, help="our network card in it")
    parser.add_argument("--state", type=Path, default=Path("/var/lib/mx/clip"), help="our files (default: %(default)s)")
    parser.add_argument("--join", default="", metavar="HOST:PORT", help="mx-join, from which machines get their certificates")
    parser.add_argument("--tokens", type=Path, default=TOKENS, help="hashes of tokens, as mx-join has it (default: %(default)s)")
    parser.add_argument("--run", type=Path, default=RUN, help="what may be forgotten at a reboot (default: %(default)s)")
    parser.add_argument("--images", type=Path, default=Path("/var/lib/mx/images"), help="shelf of layers (default: %(default)s)")
    parser.add_argument("--shared", type=Path, default=Path("/shared"), help="the shared file system (default: %(default)s)")
    parser.add_argument("--http-port", type=int, default=HTTP_PORT, help="(default: %(default)s)")
    parser.add_argument("--tftp", type=Path, default=TFTP, help="directory of iPXE's programs (default: %(default)s)")
    parser.add_argument("--proxy", action="store_true", help="another DHCP server gives the addresses")
    parser.add_argument("--cluster", default="cluster", help="its name, that of mxctl's context (default: %(default)s)")
    parser.add_argument("--layers", metavar="A:B", help="layers for machines whose image was never built, topmost first")
    parser.add_argument("--boot", metavar="LAYER", help="their kernel and initramfs")
    parser.add_argument("--digest", default="", help="digest of that image")
    parser.add_argument("--arguments", default="", help="more for every machine's kernel command line")
    parser.add_argument("--verbose", action="store_true", help="say more")
    options = parser.parse_args(arguments)
    tls = tls_of(parser, options, "clip")
    if options.join and tls is None:
        parser.error("--join: machines know mx-join by the authority of --tls: give that, too")
    return config_of(options, tls), endpoints_of(parser, options.endpoints), tls, options.verbose


def config_of(options: argparse.Namespace, tls: Tls | None) -> Config:
    """Our own matters. OSError, ValueError for an authority's certificate that cannot be read."""
    revision = None
    if options.layers and options.boot:
        revision = Revision(options.digest, tuple(options.layers.split(":")), options.boot)
    return Config(
        server=options.server,
        interface=options.interface,
        etcd=options.endpoints,
        state=options.state,
        run=options.run,
        images=options.images,
        shared=options.shared,
        http_port=options.http_port,
        tftp=options.tftp,
        proxy=options.proxy,
        join=options.join,
        fingerprint=fingerprint_of(tls.ca.read_bytes()) if tls and options.join else "",
        tokens=options.tokens,
        revision=revision,
        arguments=options.arguments,
        cluster=options.cluster,
    )


async def run(config: Config, endpoints: list[str], tls: Tls | None) -> None:
    """Until SIGTERM or SIGINT."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    kv = EtcdKV.connect(endpoints, tls=tls)
    try:
        await Clip(config, kv).run()
    finally:
        await kv.close()


def main() -> int:
    """0 after a signal."""
    config, endpoints, tls, verbose = parse(sys.argv[1:])
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname).1s %(name)s: %(message)s")
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(run(config, endpoints, tls))
    return 0


if __name__ == "__main__":
    sys.exit(main())
