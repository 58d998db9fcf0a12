"""IPMI over LAN, by pyghmi. Its calls block, so they are made in a thread."""

import asyncio
from collections.abc import Callable
from typing import Any

from clip.power.credentials import Login
from clip.power.driver import PowerError
from crds.power import PowerState

PORT = 623
Connect = Callable[[], Any]


def connect(host: str, port: int, login: Login) -> Any:
    """A session with the controller: pyghmi's Command. PowerError."""
    try:
        from pyghmi.exceptions import PyghmiException
        from pyghmi.ipmi.command import Command
    except ImportError as error:
        raise PowerError(f"ipmi at {host}: pyghmi is missing on the head: pip install pyghmi") from error
    try:
        return Command(bmc=host, userid=login.user, password=login.password, port=port, keepalive=False)
    except (PyghmiException, OSError) as error:
        raise PowerError(f"ipmi at {host}: {error}: check its address and the credentials' file") from error


class IpmiDriver:
    """``open_session`` makes a session; it is called once for each action."""

    def __init__(self, host: str, open_session: Connect) -> None:
        self._host, self._open = host, open_session

    async def status(self) -> PowerState:
        answer = await self._call("get_power")
        return {"on": PowerState.ON, "off": PowerState.OFF}.get(str(answer.get("powerstate")), PowerState.UNKNOWN)

    async def on(self) -> None:
        await self._call("set_power", "on")

    async def off(self) -> None:
        await self._call("set_power", "off")

    async def reset(self) -> None:
        await self._call("set_power", "boot")  # pyghmi: on when it is off, else reset

    async def boot_from_network(self) -> None:
        await self._call("set_bootdev", "network")

    async def _call(self, name: str, *arguments: object) -> dict[str, Any]:
        def blocking() -> dict[str, Any]:
            session = self._open()
            try:
                found = getattr(session, name)(*arguments)
            except Exception as error:  # pyghmi lets errors of many kinds out
                raise PowerError(f"ipmi at {self._host}: {name}: {type(error).__name__}: {error}") from error
            finally:
                session.ipmi_session.logout()
            if isinstance(found, dict) and "error" in found:
                raise PowerError(f"ipmi at {self._host}: {name}: {found['error']}")
            return found if isinstance(found, dict) else {}

        return await asyncio.to_thread(blocking)
