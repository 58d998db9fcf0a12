"""Which driver a Node means."""

from functools import partial
from pathlib import Path

from clip.power import ipmi, redfish
from clip.power.credentials import DIRECTORY, read_login
from clip.power.driver import Driver, PowerError
from clip.power.qmp import QmpDriver
from clip.power.wol import BROADCAST, WolDriver
from crds.node import Node
from crds.power import PowerDriver, PowerSpec


def make_driver(node: Node, credentials: Path = DIRECTORY) -> Driver:
    """For the node as it is declared. PowerError."""
    power = node.spec.power
    if power is None:
        raise PowerError(f"{node.label} has no power driver: set spec.power")
    try:
        return _make(node, power, credentials)
    except PowerError as error:
        raise PowerError(f"{node.label}: {error}") from error


def _make(node: Node, power: PowerSpec, credentials: Path) -> Driver:
    match power.driver:
        case PowerDriver.WOL:
            if node.spec.mac is None:
                raise PowerError("wake-on-lan needs spec.mac")
            return WolDriver(node.spec.mac, power.address or BROADCAST)
        case PowerDriver.LAB:
            raise PowerError("nodes of a lab are switched by mxctl lab power, on the machine the lab is on")
        case _ if not power.address:
            raise PowerError(f"spec.power.address is not set: the driver {power.driver} needs it")
        case PowerDriver.QMP:
            return QmpDriver(power.address)
        case PowerDriver.IPMI:
            host, _, port = power.address.partition(":")
            if port and not port.isdigit():
                raise PowerError(f"spec.power.address {power.address} is not HOST or HOST:PORT")
            login = read_login(credentials, power.credentials)
            return ipmi.IpmiDriver(host, partial(ipmi.connect, host, int(port or ipmi.PORT), login))
        case PowerDriver.REDFISH:
            login = read_login(credentials, power.credentials)
            return redfish.RedfishDriver(power.address, partial(redfish.find_system, power.address, login, power.system))
