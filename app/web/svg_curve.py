"""Curves as plain lines: what is seen until a script draws them, and by who runs none."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.jobs.results.curves import Curve
from app.web.formats import count, number, percent

WIDTH, HEIGHT = 1000, 300  # of the box, which a browser stretches to its place
NAMES = {"train": "training"}
DOT = "h0"  # a line of no length, so that a point between two gaps is seen

Points = list[tuple[int, float | None]]  # step, value


@dataclass(frozen=True)
class Sketch:
    """One figure by step: the path of each part, all on the same scale, and the same in words."""

    paths: dict[str, str]
    words: str

    @classmethod
    def of(cls, curves: Sequence[Curve], name: str) -> "Sketch":
        """Curves without a finite value are left out."""
        known: dict[str, Points] = {
            curve.split: list(zip(curve.steps, curve.values, strict=True))
            for curve in curves
            if curve.name == name and any(value is not None for value in curve.values)
        }
        values = [value for points in known.values() for _, value in points if value is not None]
        low, high = min(values, default=0.0), max(values, default=0.0)
        last = max((points[-1][0] for points in known.values()), default=0)
        across, up = WIDTH / max(last, 1), HEIGHT / ((high - low) or 1)
        write = percent if name == "accuracy" else number
        return cls(
            {part: _path(points, across, up, high) for part, points in known.items()},
            "; ".join(
                f"{NAMES.get(part, part)} {_ends(points, write)}" for part, points in known.items()
            ),
        )


def _path(points: Points, across: float, up: float, high: float) -> str:
    """As of an SVG, from the upper left. It breaks where a value is not finite."""
    found, drawing = [], False
    for step, value in points:
        if value is not None:
            place = f"{step * across:.1f} {(high - value) * up:.1f}"
            found.append(f"L{place}" if drawing else f"M{place}{DOT}")
        drawing = value is not None
    return "".join(found)


def _ends(points: Points, write: Callable[[float], str]) -> str:
    """`from 0.69 at step 1 to 0.31 at step 94`."""
    known = [f"{write(value)} at step {count(step)}" for step, value in points if value is not None]
    return known[0] if len(known) == 1 else f"from {known[0]} to {known[-1]}"
