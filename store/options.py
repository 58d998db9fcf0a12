"""How daemons are told where etcd is and who they are to it: the same options for all."""

import argparse
from pathlib import Path

from store.etcd_channel import Tls

CERTIFICATES = Path("/etc/mx/tls")
"""Where the head's services have theirs."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """--endpoints, and --tls DIR or --ca, --cert and --key."""
    parser.add_argument("--endpoints", required=True, metavar="HOST:PORT[,…]", help="etcd's client endpoints")
    found = "ca.crt, and certificate and key named after the daemon; without it and --ca etcd is spoken to in plain text"
    parser.add_argument("--tls", type=Path, metavar="DIR", help=f"directory with {found}")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="the authority's certificate, instead of --tls")
    parser.add_argument("--cert", type=Path, metavar="FILE", help="our own certificate")
    parser.add_argument("--key", type=Path, metavar="FILE", help="its key")


def endpoints_of(parser: argparse.ArgumentParser, text: str) -> list[str]:
    """Ends the process with a message when there is none."""
    endpoints = [endpoint.strip() for endpoint in text.split(",") if endpoint.strip()]
    if not endpoints:
        parser.error("--endpoints names no endpoint: write HOST:PORT, several separated by commas")
    return endpoints


def tls_of(parser: argparse.ArgumentParser, options: argparse.Namespace, holder: str) -> Tls | None:
    """``holder`` names the files in the directory. Ends the process with a message when options contradict each other."""
    single = (options.ca, options.cert, options.key)
    if options.tls is not None:
        if any(single):
            parser.error("--tls and --ca, --cert, --key say the same thing: give one or the others")
        return Tls.of(options.tls, holder)
    if any(single) and not all(single):
        parser.error("--ca, --cert and --key belong together: give all three, or --tls DIR")
    return Tls(*single) if all(single) else None
