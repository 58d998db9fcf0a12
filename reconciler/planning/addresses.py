"""Which address a job gets: the lowest of the cluster's job range that nobody has."""

from collections.abc import Container
from ipaddress import IPv4Network

from crds.cluster import NetworkSpec
from crds.network import mac_for


class NoAddress(Exception):  # noqa: N818 - named after what happened
    """The text says why, and what to do."""


def choose_address(network: NetworkSpec, taken: Container[str]) -> tuple[str, str]:
    """Address and MAC, neither of them in ``taken``. Raises NoAddress."""
    if network.job_range is None:
        raise NoAddress("the cluster has no addresses for jobs: set spec.network.jobRange")
    cidr = IPv4Network(network.cidr)
    never = {str(cidr.network_address), str(cidr.broadcast_address), network.gateway}
    for candidate in IPv4Network(network.job_range):
        address = str(candidate)
        if address not in never and address not in taken and mac_for(address) not in taken:
            return address, mac_for(address)
    raise NoAddress(f"all addresses of {network.job_range} are taken: delete jobs that have ended, or widen spec.network.jobRange")
