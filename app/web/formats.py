"""How numbers, times and names are written on pages: filters of the templates."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from markupsafe import Markup

UNKNOWN = "\N{EN DASH}"


def percent(share: float | None, digits: int = 1) -> str:
    """0.8123 is `81.2 %`."""
    return UNKNOWN if share is None else f"{share * 100:.{digits}f} %"


def count(number: int | None) -> str:
    """1234567 is `1,234,567`."""
    return UNKNOWN if number is None else f"{number:,}"


def number(value: float | None) -> str:
    """At most four digits that matter: `0.0003`, `16`, `0.4312`."""
    return UNKNOWN if value is None else f"{value:.4g}"


def size(octets: int | None) -> str:
    """2500000 is `2.5 MB`."""
    if octets is None:
        return UNKNOWN
    value = float(octets)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{octets} bytes" if unit == "bytes" else f"{value:.1f} {unit}"


def duration(seconds: float | None) -> str:
    """75.2 is `1 min 15 s`."""
    if seconds is None:
        return UNKNOWN
    if 0 < seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def roughly(seconds: float) -> str:
    """An estimate: `about 12 minutes`."""
    units = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
    length, name = next((each for each in units if seconds >= 1.5 * each[0]), units[-1])
    number = max(1, round(seconds / length))
    return f"about {number:,} {name}" + ("s" if number > 1 else "")


def ago(moment: float | None) -> Markup | str:
    """How long ago it was, with the time itself (UTC) under the pointer."""
    if moment is None:
        return UNKNOWN
    passed = max(0.0, time.time() - moment)
    spoken = "just now"
    for seconds, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if passed >= seconds:
            spoken = f"{int(passed // seconds)} {unit} ago"
            break
    return _time(moment, spoken)


def when(moment: float | None) -> Markup | str:
    """The time, UTC: `27 Nov 2026, 07:46`."""
    if moment is None:
        return UNKNOWN
    return _time(moment, f"{datetime.fromtimestamp(moment, UTC):%-d %b %Y, %H:%M}")


def clock(moment: float) -> Markup:
    """The time of day, UTC: `07:46:03`."""
    return _time(moment, f"{datetime.fromtimestamp(moment, UTC):%H:%M:%S}")


def _time(moment: float, spoken: str) -> Markup:
    at = datetime.fromtimestamp(moment, UTC)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        at.isoformat(timespec="seconds"), f"{at:%-d %b %Y, %H:%M:%S} UTC", spoken
    )


def short(identity: UUID | str) -> str:
    """The end of an id, which tells ids of one minute apart."""
    return str(identity)[-8:]


FILTERS: dict[str, Callable[..., Any]] = {
    each.__name__: each
    for each in (percent, count, number, size, duration, roughly, ago, when, clock, short)
}
