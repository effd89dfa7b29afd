"""`loraworks datasets suspects`, `correct` and `diff`: labels that are probably wrong."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.datasets import Ref
from app.cli.errors import UsageError
from app.cli.options import AsJson, Limit, with_client
from app.cli.output import (
    Json,
    format_given_number,
    format_percent,
    format_time,
    print_fields,
    print_json,
    print_line,
    print_table,
)
from app.cli.text_files import read_numbered_lines
from app.label_review.schemas import label_field_name

if TYPE_CHECKING:
    from app.cli.client import Client
    from app.datasets.schemas import DatasetView
    from app.label_review.schemas import Label, SuspectLabel

_EXCERPT = 60  # characters of a text in a table

Target = Annotated[
    str | None, typer.Option("--target", help="Which of several targets the labels are of.")
]
Changes = Annotated[
    list[str],
    typer.Option(
        "--change",
        metavar="ROW=LABEL",
        help="Right label of a row; several names separated by commas, or as a JSON list. "
        "Repeatable.",
    ),
]
Keep = Annotated[
    list[int],
    typer.Option("--keep", metavar="ROW", help="Row whose label is right. Repeatable."),
]
ChangesFile = Annotated[
    Path | None,
    typer.Option(
        "--file",
        metavar="FILE",
        help='JSON Lines: {"row": 3, "label": "b"}, with labels or value in place of label for '
        'other tasks, or {"row": 7, "keep": true}.',
        exists=True,
        dir_okay=False,
        readable=True,
    ),
]
NewLabel = Annotated[
    bool, typer.Option("--new-label", help="Allow labels that no row of the dataset has.")
]


@with_client
def list_suspects(
    client: "Client", ref: Ref, target: Target = None, limit: Limit = 50, as_json: AsJson = False
) -> None:
    """List labels that are probably wrong, the most suspect first."""
    found = client.list_suspects(ref, limit, target)
    if as_json:
        print_json(found)
        return
    print_table(
        [
            ">row",
            "label",
            "proposed",
            ">confidence" if found.spread is None else ">spreads",
            "text",
        ],
        [
            (
                each.row,
                format_label(each.given),
                format_label(each.proposed),
                _certainty(each),
                _excerpt(each),
            )
            for each in found.data
        ],
        empty="No label is suspect.",
    )
    notes = [f"{found.found:,} suspect labels in {found.checked:,} rows"]
    if found.checked < found.rows:
        notes.append(f"a sample of {found.rows:,}")
    if found.agreement is not None:
        notes.append(f"the model agrees with {format_percent(found.agreement)} of the labels")
    if found.kept:
        notes.append(f"{found.kept:,} were kept")
    print_line(f"{', '.join(notes)}.")
    if found.data:
        first = found.data[0]
        option = f"--change {shlex.quote(f'{first.row}={format_label(first.proposed)}')}"
        of_target = f" --target {target}" if target else ""
        print_line(f"Correct them: loraworks datasets correct {found.ref}{of_target} {option}")


@with_client
def correct_labels(  # noqa: PLR0913 - one parameter per option
    client: "Client",
    ref: Ref,
    change: Changes = [],  # noqa: B006 - typer's way of a repeatable option
    keep: Keep = [],  # noqa: B006
    file: ChangesFile = None,
    target: Target = None,
    new_label: NewLabel = False,
    as_json: AsJson = False,
) -> None:
    """Correct labels: the result is the next version of the dataset.

    Name the version that you looked at, such as tickets:1.
    """
    body: Json = {"changes": [], "keep": []}
    if change:
        dataset = client.get_dataset(ref)
        body["changes"] = [_parse_change(each, dataset, target) for each in change]
    body["keep"] = [_with_target({"row": row}, target) if target else row for row in keep]
    if file is not None:
        _read_changes(file, body)
    diff = client.create_correction(ref, {**body, **({"new_label": True} if new_label else {})})
    if as_json:
        print_json(diff)
    elif diff.corrected_from is None:
        print_line(f"Kept {diff.kept:,} label(s) of {diff.ref}.")
    else:
        print_line(f"Created {diff.ref}: {len(diff.changes):,} label(s) changed.")
        if diff.forgotten_rows:
            print_line(f"Left out, to be forgotten: {len(diff.forgotten_rows):,} row(s).")
        print_line(f"Show them: loraworks datasets diff {diff.ref}")


@with_client
def show_correction_diff(client: "Client", ref: Ref, as_json: AsJson = False) -> None:
    """Show what a corrected version of a dataset changed."""
    diff = client.get_correction_diff(ref)
    if as_json:
        print_json(diff)
        return
    print_fields(
        [
            ("dataset", diff.ref),
            ("corrected from", diff.corrected_from),
            ("by", diff.corrected_by),
            ("created", format_time(diff.created_at)),
            ("kept", diff.kept or None),
            ("forgotten rows", len(diff.forgotten_rows) or None),
        ]
    )
    has_targets = any(each.target for each in diff.changes)
    print_table(
        [">row", *(["target"] if has_targets else []), "before", "after"],
        [
            (
                each.row,
                *([each.target] if has_targets else []),
                format_label(each.before),
                format_label(each.after),
            )
            for each in diff.changes
        ],
        empty="No label was changed.",
    )


def format_label(label: "Label") -> str:
    """Return a label as `--change` takes it; an empty set of names is a dash."""
    if isinstance(label, list):
        if any("," in name for name in label):
            return json.dumps(label, ensure_ascii=False)
        return ",".join(label) or "-"
    return label if isinstance(label, str) else format_given_number(label)


def _certainty(suspect: "SuspectLabel") -> str:
    if suspect.confidence is None:
        return f"{suspect.score:.1f}"
    return format_percent(suspect.confidence)


def _excerpt(suspect: "SuspectLabel") -> str:
    text = suspect.text if suspect.text_pair is None else f"{suspect.text} / {suspect.text_pair}"
    text = " ".join(text.split())
    return text if len(text) <= _EXCERPT else f"{text[: _EXCERPT - 1]}…"


def _parse_change(change: str, dataset: "DatasetView", target: str | None) -> Json:
    """Parse `3=spam`. Raises `UsageError`."""
    row, equals, label = change.partition("=")
    if not equals or not row.strip().isdecimal():
        raise UsageError(f"--change needs ROW=LABEL, not {change!r}", "invalid_change")
    task = dataset.task
    if target is not None and dataset.targets and target in dataset.targets:
        task = dataset.targets[target]["type"]
    value: Any = label.strip()
    field = label_field_name(task)
    if field == "labels":
        value = _parse_label_set(value)
    elif field == "value":
        try:
            value = float(value)
        except ValueError as error:
            raise UsageError(
                f"--change needs a number, not {change!r}", "invalid_change"
            ) from error
    return _with_target({"row": int(row), field: value}, target)


def _parse_label_set(text: str) -> list[str]:
    """Parse `a,b`, or `["a, b"]` if a name has a comma."""
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if isinstance(names, list) and all(isinstance(each, str) for each in names):
        return names
    return [] if text in ("", "-") else [name.strip() for name in text.split(",")]


def _with_target(body: Json, target: str | None) -> Json:
    return body if target is None else {**body, "target": target}


def _read_changes(file: Path, body: Json) -> None:
    """Add the lines of a file to the body. Raises `UsageError`."""
    for number, line in read_numbered_lines(file):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise UsageError(f"{file.name}, line {number}: not a JSON object", "invalid_change")
        kept = record.pop("keep", False)
        if kept is True:
            body["keep"].append(record)
        else:
            body["changes"].append(record)
