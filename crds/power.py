"""Power of machines: what people declare, and the request and outcome by which it is switched.

Who wants something writes a request under an id of its own; mx-clip writes down that it begins, acts, and writes what came of it.
A secret is in neither: a Node names a file on the head.
"""

from enum import StrEnum

from pydantic import Field, field_validator

from crds.meta import Model, Name, Time


class PowerDriver(StrEnum):
    """How a machine is switched."""

    QMP = "qmp"
    """QEMU's monitor, a unix socket on the head."""
    IPMI = "ipmi"
    REDFISH = "redfish"
    WOL = "wol"
    """Wake-on-LAN: can only switch on."""
    LAB = "lab"
    """A namespace node of mxctl lab."""


class PowerSpec(Model):
    """How a machine is switched on and off."""

    driver: PowerDriver
    """qmp, ipmi, redfish, wol or lab."""
    address: str = ""
    """Of its management controller: host or host:port, a URL for redfish, a socket's path for qmp, broadcast address for wol."""
    credentials: Name | None = None
    """File in the head's directory of power credentials: {"user": …, "password": …}. The secret itself is never in the cluster."""
    system: str = ""
    """Which system of a controller that has several (redfish)."""

    @field_validator("address")
    @classmethod
    def _has_no_secret(cls, value: str) -> str:
        if "@" in value:
            raise ValueError("is read by everybody: put user and password into a file on the head and name it in credentials")
        return value


class PowerAction(StrEnum):
    """What can be asked of a machine."""

    ON = "on"
    OFF = "off"
    RESET = "reset"
    STATUS = "status"


class PowerState(StrEnum):
    """What a machine answers."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


class PowerPhase(StrEnum):
    """How far a request is."""

    ACTING = "Acting"
    """It may have been done already."""
    DONE = "Done"
    FAILED = "Failed"
    REFUSED = "Refused"
    """Nothing was done: what the request relies on does not hold."""
    UNKNOWN = "Unknown"
    """mx-clip was interrupted while it reset the machine; it does not do so twice."""


class PowerRequest(Model):
    """/mx/machine-power/<node>/request."""

    id: str = Field(min_length=1)
    """Makes it one request, however often it is read."""
    action: PowerAction
    """What is wanted."""
    from_network: bool = True
    """Whether the next boot is over the network (on, reset)."""
    boot_id: str = ""
    """Act only as long as the node's agent says this boot, or nothing; empty: whatever runs there."""
    only_empty: bool = False
    """Act only as long as no job lives there."""
    requested_by: str = "user"
    """user, rollout/<name>, delete or idle."""
    reason: str = ""
    """Why, for people."""
    requested_at: Time
    """When."""
    expires_at: Time | None = None
    """Nothing is done after that."""


class PowerOutcome(Model):
    """/mx/machine-power/<node>/outcome, of the request with this id."""

    id: str
    """The request's."""
    phase: PowerPhase
    """How far it is."""
    state: PowerState = PowerState.UNKNOWN
    """What the machine said afterwards."""
    message: str = ""
    """One line for people: what failed, and what to do."""
    time: Time
    """When this was written."""
