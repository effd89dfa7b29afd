"""The paired test of two jobs, in plain words."""

from app.jobs.results.comparison import CHANCE, PartView
from app.jobs.results.misclassified import Part


def sentence(name: str, first: str, on: PartView | None, part: Part) -> str:
    """How a job did beside the first one, how sure that is, or why it cannot be told."""
    if on is None:
        return f"{name} keeps no answers to {part} texts."
    if on.unpaired == "first_has_none":
        return f"{first} keeps no answers to {part} texts, so there is nothing to test against."
    pair = on.against_first
    if pair is None:
        return (
            f"{name} and {first} answered other {part} texts, so no text can be paired. Their "
            "intervals still tell how sure each accuracy is."
        )
    points = 100 * pair.difference
    more = f"{abs(points):.1f} points {'better' if points > 0 else 'worse'} than"
    if points == 0:
        more = "exactly as good as"
    return (
        f"{name} is {more} {first} on {on.texts:,} {part} texts (95 % interval "
        f"{signed(100 * pair.low)} to {signed(100 * pair.high)}). It alone is right on "
        f"{pair.only_this:,} of them, {first} alone on {pair.only_first:,}. {_verdict(pair.p)}"
    )


def _verdict(p: float) -> str:
    """What the exact McNemar test says."""
    shown = "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
    if p < CHANCE:
        return f"Chance hardly explains that ({shown})."
    return f"Chance alone could explain that ({shown}): they cannot be told apart."


def signed(points: float) -> str:
    """`+1.5`; what is zero when rounded has no minus."""
    return f"{round(points, 1) + 0.0:+.1f}".replace("-", "\N{MINUS SIGN}")
