"""Who may read and write which keys: etcd's users and roles, one user for each certificate's common name, none with a password.

People and the head's services may do everything. A node may write below /mx/nodes/<itself>/ and read that, what is placed on it and
what is public; nothing else, save the hole that etcd has: a *watch* from a key that one may read sees all keys behind
it (GHSA-xg4h-6gfc-h4m8, etcd < 3.5.33). That is why what agents may read sorts last (crds/keys.py).

Each call may be repeated, and goes on where one that was cut short ended.
"""

import logging
from collections.abc import Sequence
from typing import Protocol

from crds import keys
from crds.organisations import CLIP, RECONCILER, SUPERUSER
from store.errors import Invalid, NotFound
from store.etcd_channel import Answer, Channel, Method, Request
from store.etcd_watch import prefix_end
from store.rpc import etcd_pb2 as pb

log = logging.getLogger(__name__)

ENABLE = Method("/etcdserverpb.Auth/AuthEnable", pb.AuthEnableRequest, pb.AuthResponse)
STATUS = Method("/etcdserverpb.Auth/AuthStatus", pb.AuthStatusRequest, pb.AuthStatusResponse)
USER_ADD = Method("/etcdserverpb.Auth/UserAdd", pb.AuthUserAddRequest, pb.AuthResponse)
USER_DELETE = Method("/etcdserverpb.Auth/UserDelete", pb.AuthUserDeleteRequest, pb.AuthResponse)
USER_GRANT = Method("/etcdserverpb.Auth/UserGrantRole", pb.AuthUserGrantRoleRequest, pb.AuthResponse)
ROLE_ADD = Method("/etcdserverpb.Auth/RoleAdd", pb.AuthRoleAddRequest, pb.AuthResponse)
ROLE_DELETE = Method("/etcdserverpb.Auth/RoleDelete", pb.AuthRoleDeleteRequest, pb.AuthResponse)
ROLE_GRANT = Method("/etcdserverpb.Auth/RoleGrantPermission", pb.AuthRoleGrantPermissionRequest, pb.AuthResponse)

SERVICES = (RECONCILER, CLIP)
READ, READWRITE = pb.Permission.READ, pb.Permission.READWRITE


class Rights(Protocol):
    """What whoever admits and removes nodes needs. Errors: StoreError."""

    async def admit(self, node: str) -> None:
        """From now on the certificate of that name may do what a node may."""
        ...

    async def expel(self, node: str) -> None:
        """From now on it may do nothing. An open watch goes on until its connection ends: etcd asks at its start only."""
        ...


class EtcdRights:
    """Rights in a real etcd. Made with the connection of one who may do everything."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def secure(self, people: Sequence[str]) -> None:
        """Nobody gets in any more but with a certificate of ``people``, of the head's services or of an admitted node.

        Without TLS on etcd's port nobody would get in at all then.
        """
        await self._add_role(SUPERUSER)
        for user in (SUPERUSER, *SERVICES, *people):
            await self._add_user(user, SUPERUSER)
        await self._channel.call(ENABLE, pb.AuthEnableRequest(), "of all users")

    async def enabled(self) -> bool:
        """Whether etcd asks who somebody is."""
        return (await self._channel.call(STATUS, pb.AuthStatusRequest(), "of all users")).enabled

    async def admit(self, node: str) -> None:
        check_name(node)
        role = role_of(node)
        await self._add_role(role)
        for kind, prefix in permissions(node):
            start, end = prefix_end(prefix)
            granted = pb.Permission(perm_type=kind, key=start, range_end=end)
            await self._channel.call(ROLE_GRANT, pb.AuthRoleGrantPermissionRequest(name=role, perm=granted), role)
        await self._add_user(node, role)

    async def expel(self, node: str) -> None:
        check_name(node)
        await self._but_for("user name not found", USER_DELETE, pb.AuthUserDeleteRequest(name=node), node)
        await self._but_for("role name not found", ROLE_DELETE, pb.AuthRoleDeleteRequest(role=role_of(node)), role_of(node))

    async def _add_role(self, role: str) -> None:
        await self._but_for("role name already exists", ROLE_ADD, pb.AuthRoleAddRequest(name=role), role)

    async def _add_user(self, user: str, role: str) -> None:
        without = pb.UserAddOptions(no_password=True)
        await self._but_for("user name already exists", USER_ADD, pb.AuthUserAddRequest(name=user, options=without), user)
        await self._channel.call(USER_GRANT, pb.AuthUserGrantRoleRequest(user=user, role=role), user)

    async def _but_for(self, done_before: str, method: Method[Request, Answer], request: Request, subject: str) -> None:
        """It may have been done before, by us or by somebody else: that is as good."""
        try:
            await self._channel.call(method, request, subject)
        except (Invalid, NotFound) as error:
            if done_before not in str(error):
                raise


def check_name(node: str) -> None:
    """Invalid when no node may have that name, as it would be somebody else's in etcd."""
    if node == SUPERUSER or node.startswith("_"):
        raise Invalid(f"node {node}: etcd's users have this name; choose another")


def role_of(node: str) -> str:
    """Every node has a role of its own."""
    return f"node-{node}"


def permissions(node: str) -> list[tuple["pb.Permission.Type", str]]:
    """What a node may do: how, and below which prefix."""
    return [(READWRITE, keys.node_prefix(node)), (READ, keys.placement_prefix(node)), (READ, keys.PUBLIC)]
