"""`loraworks models drift`."""

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.feedback import shorten_text
from app.cli.models import ModelRef
from app.cli.options import AsJson, with_client
from app.cli.output import (
    format_percent,
    format_time,
    print_fields,
    print_json,
    print_line,
    print_table,
    print_warning,
)

if TYPE_CHECKING:
    from app.cli.client import Client
    from app.drift.schemas import DriftCheckDetail, DriftView

SHOWN_LABELS = 20

Check = Annotated[
    bool,
    typer.Option("--check", help="Compare the texts since the last check now, not in a week."),
]
Texts = Annotated[
    bool, typer.Option("--texts", help="Show the texts that differ most from the training texts.")
]
Days = Annotated[float, typer.Option("--days", min=0.05, max=80, help="What counts as recent.")]


@with_client
def show_drift(
    client: "Client",
    model: ModelRef,
    check: Check = False,
    texts: Texts = False,
    days: Days = 7.0,
    as_json: AsJson = False,
) -> None:
    """Show whether texts of traffic are still like those that a version was trained on."""
    from app.drift.description import describe_drift

    if check:
        client.create_drift_check(model)
    view = client.get_drift(model, days)
    newest = view.newest_check
    detail = client.get_drift_check(model, newest.id) if texts and newest else None
    if as_json:
        print_json(view if detail is None else {"drift": view, "check": detail})
        return
    print_line(f"{view.version}: {describe_drift(view)}")
    if view.problem is not None:
        print_warning(f"The last automatic check failed: {view.problem.message}")
    _print_numbers(view)
    if detail is not None:
        _print_texts(detail)


def _print_numbers(view: "DriftView") -> None:
    newest = view.newest_check
    print_fields(
        [
            ("last check", format_time(newest.created_at) if newest else "none"),
            ("new texts since", f"{view.new_texts} of {view.needed_texts} needed"),
            (f"predicted in {view.days:g} days", view.predicted),
            ("no label", _change(view.abstained.recent, view.abstained.before)),
        ]
    )
    if view.labels:
        print_table(
            ["label", ">now", ">before", ">training"],
            [
                (
                    each.label,
                    format_percent(each.recent),
                    format_percent(each.before),
                    format_percent(each.training),
                )
                for each in view.labels[:SHOWN_LABELS]
            ],
            empty="",
        )


def _print_texts(detail: "DriftCheckDetail") -> None:
    print_table(
        ["prediction", "text that differs most"],
        [
            (each.prediction_id, shorten_text(each.text, each.text_pair))
            for each in detail.most_different
        ],
        empty="The most different texts are not kept any more.",
    )


def _change(recent: float | None, before: float | None) -> str:
    return f"{format_percent(recent)}, before {format_percent(before)}"
