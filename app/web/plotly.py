"""Plotly's own JavaScript, from the installed package, under a policy without inline styles.

At its start the bundle adds two style elements, which such a policy blocks and browsers report. It
leaves that if elements with their ids are there (plotly.js#7109): a link to its rules, which are
read from the bundle here, and an empty one for those of its maps, which no page of ours draws.
"""

import gzip
import re
from functools import cache
from importlib.metadata import version
from importlib.resources import files

VERSION = version("plotly")
_RULES = re.compile(r'=\{("X,X div":.*?)\};for\(', re.DOTALL)
_RULE = re.compile(r"""(?:"([XY][^"]*)"|\b(Y)):(?:"([^"]*)"|'([^']*)')""")
_MAPS = re.compile(r'getElementById\("([0-9a-f]{64})"\)')


@cache
def script() -> str:
    """The whole bundle, 4.5 MB."""
    return (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


@cache
def packed() -> bytes:
    """The bundle in a third of the bytes."""
    return gzip.compress(script().encode(), 6)


@cache
def style() -> str:
    """What the bundle would put into its first style element."""
    rules = _found(_RULES)
    lines = []
    for selector, alone, plain, quoted in _RULE.findall(rules):
        named = (selector or alone).replace("X", ".js-plotly-plot .plotly")
        lines.append(f"{named.replace('Y', '.plotly-notifier')}{{{plain or quoted}}}\n")
    return "".join(lines)


@cache
def maps_style_id() -> str:
    """The id of its second one."""
    return _found(_MAPS)


def _found(pattern: re.Pattern[str]) -> str:
    match = pattern.search(script())
    if match is None:
        raise LookupError(f"plotly {VERSION} has no {pattern.pattern!r}: its bundle has changed")
    return match[1]
