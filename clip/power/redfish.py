"""Redfish, by sushy. Its calls block, so they are made in a thread."""

import asyncio
from collections.abc import Callable
from typing import Any

from clip.power.credentials import Login
from clip.power.driver import PowerError
from crds.power import PowerState

Find = Callable[[], Any]


def find_system(url: str, login: Login, system: str) -> Any:
    """sushy's System. ``system``: its identity or path; the only one when empty. PowerError."""
    try:
        import sushy
        from sushy.exceptions import SushyError
    except ImportError as error:
        raise PowerError(f"redfish at {url}: sushy is missing on the head: pip install sushy") from error
    base = url if "://" in url else f"https://{url}"
    try:
        root = sushy.Sushy(base, username=login.user, password=login.password, verify=login.verify, server_side_retries=0)
        known = root.get_system_collection().get_members()
    except (SushyError, OSError) as error:
        raise PowerError(f"redfish at {url}: {error}: check its address and the credentials' file") from error
    chosen = [one for one in known if not system or system in (one.identity, one.path)]
    if len(chosen) != 1:
        there = ", ".join(one.identity for one in known) or "none"
        raise PowerError(f"redfish at {url}: {len(chosen)} systems match; there are: {there}: name one in spec.power.system")
    return chosen[0]


class RedfishDriver:
    """``find`` gives the system; it is called once for each action."""

    def __init__(self, url: str, find: Find) -> None:
        self._url, self._find = url, find

    async def status(self) -> PowerState:
        return PowerState(await self._call("status", _state))

    async def on(self) -> None:
        await self._call("on", lambda system: None if _state(system) == PowerState.ON else system.reset_system("On"))

    async def off(self) -> None:
        await self._call("off", lambda system: None if _state(system) == PowerState.OFF else system.reset_system("ForceOff"))

    async def reset(self) -> None:
        await self._call("reset", lambda system: system.reset_system("ForceRestart" if _state(system) == PowerState.ON else "On"))

    async def boot_from_network(self) -> None:
        await self._call("boot from network", lambda system: system.set_system_boot_options(target="Pxe", enabled="Once"))

    async def _call(self, what: str, act: Callable[[Any], Any]) -> Any:
        def blocking() -> Any:
            try:
                return act(self._find())
            except PowerError:
                raise
            except Exception as error:  # sushy lets its transport's errors out
                raise PowerError(f"redfish at {self._url}: {what}: {type(error).__name__}: {error}") from error

        return await asyncio.to_thread(blocking)


def _state(system: Any) -> PowerState:
    word = str(getattr(system.power_state, "value", system.power_state)).lower()
    return {"on": PowerState.ON, "off": PowerState.OFF}.get(word, PowerState.UNKNOWN)
