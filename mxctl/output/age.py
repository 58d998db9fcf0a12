"""How long ago, in few letters: 45s, 3m20s, 25m, 5h12m, 3d4h, 200d."""

from datetime import UTC, datetime

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def age(moment: datetime | None, now: datetime | None = None) -> str:
    """The time since then; "-" when it is not known."""
    if moment is None:
        return "-"
    return span((now or datetime.now(UTC)).timestamp() - moment.timestamp())


def span(seconds: float) -> str:
    """Two units while the second matters, one unit then."""
    whole = max(0, int(seconds))
    if whole < 2 * _MINUTE:
        return f"{whole}s"
    if whole < 10 * _MINUTE:
        return _two(whole, _MINUTE, "m", 1, "s")
    if whole < 3 * _HOUR:
        return f"{whole // _MINUTE}m"
    if whole < 8 * _HOUR:
        return _two(whole, _HOUR, "h", _MINUTE, "m")
    if whole < 2 * _DAY:
        return f"{whole // _HOUR}h"
    return _two(whole, _DAY, "d", _HOUR, "h") if whole < 8 * _DAY else f"{whole // _DAY}d"


def _two(whole: int, big: int, big_word: str, small: int, small_word: str) -> str:
    rest = whole % big // small
    return f"{whole // big}{big_word}" + (f"{rest}{small_word}" if rest else "")
