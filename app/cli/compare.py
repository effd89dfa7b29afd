"""`loraworks jobs compare`: jobs beside each other."""

from typing import Annotated

import typer

from app.charts.fields import text
from app.cli.client import Client
from app.cli.options import AsJson, connected
from app.cli.output import as_json as print_json
from app.cli.output import percent, say, table
from app.cli.responses import Json

JobIds = Annotated[list[str], typer.Argument(metavar="JOB...", help="Ids of 1 to 20 jobs.")]
PARTS = ("validation", "test")
UNPAIRED = {"other_texts": "other texts", "first_has_none": "the first has no answers"}


@connected
def compare(client: Client, job: JobIds, as_json: AsJson = False) -> None:
    """Jobs side by side: accuracy, each tested against the first, settings that differ."""
    found = client.compare(job)
    if as_json:
        print_json(found)
        return
    names = [each["job"]["name"] or each["job"]["id"][-8:] for each in found["jobs"]]
    for part in [each for each in PARTS if any(job[each] for job in found["jobs"])]:
        table(
            [
                "job",
                "state",
                f">{part} acc",
                ">95 % interval",
                ">less the first",
                ">95 % interval",
                ">p",
            ],
            [
                (name, each["job"]["state"], *_figures(each[part]))
                for name, each in zip(names, found["jobs"], strict=True)
            ],
            empty="",
        )
        say("")
    table(
        ["setting", *names],
        [(field, *map(text, values)) for field, values in found["settings"].items()],
        empty="Their settings are the same.",
    )


def _figures(part: Json | None) -> list[str]:
    """Accuracy, its interval, the difference, its interval, p of McNemar's test."""
    if part is None:
        return ["-"] * 5
    accuracy = [percent(part["accuracy"]), f"{100 * part['low']:.1f} to {100 * part['high']:.1f}"]
    pair = part["against_first"]
    if pair is None:
        return [*accuracy, UNPAIRED.get(part["unpaired"], "-"), "-", "-"]
    difference, low, high = (100 * pair[name] for name in ("difference", "low", "high"))
    return [*accuracy, f"{difference:+.1f}", f"{low:+.1f} to {high:+.1f}", f"{pair['p']:.2g}"]
