"""`loraworks labeling …`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.charts.formatting import format_number
from app.cli import files
from app.cli.errors import UsageError
from app.cli.options import AsJson, Limit, with_client
from app.cli.output import (
    format_given_number,
    format_metric,
    format_percent,
    format_time,
    print_fields,
    print_json,
    print_line,
    print_table,
)

if TYPE_CHECKING:
    from app.cli.client import Client
    from app.labeling.schemas import (
        LabelFields,
        LabelingView,
        SuggestionView,
    )
    from app.serving.schemas import NearestExample

MIN_RANDOM_TEXTS = 20  # below, the service estimates no accuracy

app = typer.Typer(help="Label the texts of a dataset. `loraworks label` does it key by key.")

Project = Annotated[str, typer.Argument(metavar="PROJECT", help="Name of the project.")]
Annotator = Annotated[
    str | None, typer.Option("--annotator", help="Who labels, if several share an API key.")
]


@app.command("create")
@with_client
def create_project(  # noqa: PLR0913 - options
    client: "Client",
    project: Project,
    source: Annotated[
        str,
        typer.Argument(metavar="FILE|DATASET", help="A file of texts, or an uploaded dataset."),
    ],
    labels: Annotated[
        list[str] | None, typer.Option("--label", help="A label (repeatable); more can follow.")
    ] = None,
    task: Annotated[
        str, typer.Option("--task", help="single_label, multi_label or regression.")
    ] = "single_label",
    ordered: Annotated[bool, typer.Option("--ordered", help="The labels are ranks.")] = False,
    base: Annotated[
        str | None, typer.Option("--base", help="Encoder that computes the vectors of the texts.")
    ] = None,
    random_share: Annotated[
        float,
        typer.Option("--random-share", help="Share of random texts, which estimate accuracy."),
    ] = 0.2,
    overlap: Annotated[
        float, typer.Option("--overlap", help="Share of texts that two annotators label.")
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the choice of texts.")] = 0,
    text_column: Annotated[
        str | None, typer.Option("--text-column", help="Column of the texts in the file.")
    ] = None,
    text_pair_column: Annotated[
        str | None, typer.Option("--text-pair-column", help="Column of the second texts.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a labeling project."""
    columns = {"text_column": text_column, "text_pair_column": text_pair_column}
    body: dict[str, Any] = {
        "name": project,
        "dataset": _find_dataset(client, source, columns),
        "task": {"type": task, "ordered": ordered},
        "labels": labels or [],
        "random_share": random_share,
        "overlap": overlap,
        "seed": seed,
    }
    created = client.create_labeling_project(body | ({"base": base} if base else {}))
    if as_json:
        print_json(created)
        return
    print_line(f"Created {created.name} with {created.texts:,} texts.")
    print_line(f"Label them with `loraworks label {created.name}`.")


def _find_dataset(client: "Client", source: str, columns: dict[str, str | None]) -> str:
    """Return the reference of a dataset; a file is uploaded."""
    file = Path(source)
    if not file.is_file():
        if any(columns.values()):
            raise UsageError(f"file {source} does not exist", "no_file")
        return source
    if files.lacks_table_suffix(file):
        with files.temporary_table_from_lines(file) as table:
            return client.upload_dataset(table, purpose="predict").ref
    return files.upload_with_column_prompt(client, file, purpose="predict", **columns).ref


@app.command("list")
@with_client
def list_projects(client: "Client", limit: Limit = 20, as_json: AsJson = False) -> None:
    """List labeling projects, the newest first."""
    projects = client.list_labeling_projects(limit)
    if as_json:
        print_json(projects)
        return
    print_table(
        ["project", "dataset", "task", ">texts", ">labeled", "created"],
        [
            (
                each.name,
                each.dataset,
                each.task.type,
                each.texts,
                each.labeled,
                format_time(each.created_at),
            )
            for each in projects
        ],
        empty="No labeling projects. Create one with `loraworks labeling create NAME FILE`.",
    )


@app.command("show")
@with_client
def show_project(client: "Client", project: Project, as_json: AsJson = False) -> None:
    """Show a labeling project, with the accuracy so far."""
    found = client.get_labeling_project(project)
    print_json(found) if as_json else _print_project(found)


def _print_project(found: "LabelingView") -> None:
    vectors, agreement = found.vectors, found.agreement
    state = vectors.error or (
        f"{vectors.state} ({format_percent(vectors.progress)})"
        if vectors.state == "running"
        else vectors.state
    )
    print_fields(
        [
            ("project", found.name),
            ("dataset", found.dataset + (" (deleted)" if found.dataset_deleted else "")),
            ("task", f"{found.task.type}{', ordered' if found.task.ordered else ''}"),
            ("base", found.base),
            ("vectors", state),
            ("texts", found.texts),
            ("labeled", found.labeled),
            ("skipped", found.skipped),
            ("random", found.random_labeled),
            ("accuracy so far", describe_suggestion_accuracy(found)),
            ("agreement", agreement and _describe_agreement(agreement.kappa, agreement.texts)),
            ("created", format_time(found.created_at)),
        ]
    )
    if found.labels:
        print_table(
            ["label", ">texts"], [(each.name, each.texts) for each in found.labels], empty=""
        )
    if found.annotators:
        print_table(
            ["annotator", ">labeled", ">skipped"],
            [(each.name, each.labeled, each.skipped) for each in found.annotators],
            empty="",
        )


def describe_suggestion_accuracy(project: "LabelingView") -> str:
    """Return the accuracy with its interval, in words."""
    estimate = project.accuracy
    if estimate is None and project.random_labeled < MIN_RANDOM_TEXTS:
        return f"not known yet: it needs {MIN_RANDOM_TEXTS} labeled texts that were drawn at random"
    if estimate is None:
        return (
            "not known yet: it is measured when there are suggestions, which need vectors and a "
            "few texts of each label"
        ) + (", and a random text has a label" if project.task.type == "multi_label" else "")
    value, low, high = (
        format_metric(estimate.metric, each)
        for each in (estimate.value, estimate.low, estimate.high)
    )
    return f"{estimate.metric} {value} ({low} to {high}), from {estimate.texts:,} random texts"


def _describe_agreement(kappa: float | None, texts: int) -> str:
    value = "not defined" if kappa is None else f"{kappa:.2f}"
    return f"Cohen's kappa {value}, of {texts:,} texts with two annotators"


@app.command("next")
@with_client
def lease_next_texts(
    client: "Client",
    project: Project,
    count: Annotated[int, typer.Option("--count", min=1, max=20, help="How many texts.")] = 1,
    annotator: Annotator = None,
    as_json: AsJson = False,
) -> None:
    """Get the next texts to label. Nobody else gets them for 10 minutes."""
    leased = client.lease_texts(project, count, annotator)
    if as_json:
        print_json(leased)
        return
    print_table(
        [">row", "text", "reason", "suggestion"],
        [
            (
                each.row,
                each.text if each.text_pair is None else f"{each.text} | {each.text_pair}",
                each.reason,
                describe_suggestion(each.suggestion),
            )
            for each in leased.texts
        ],
        empty="Nothing is left to label.",
    )


def describe_suggestion(suggestion: "SuggestionView | None") -> str | None:
    """Return a suggestion, in words."""
    if suggestion is None:
        return None
    if suggestion.value is not None:
        return format_number(suggestion.value)
    score = "" if suggestion.score is None else f" ({format_percent(suggestion.score)})"
    return f"{describe_label(suggestion)}{score}"


def describe_label(fields: "LabelFields | NearestExample") -> str:
    """Return a label, several labels, or a number."""
    if fields.value is not None:
        return format_given_number(fields.value)
    if fields.labels is not None:
        return ", ".join(fields.labels) or "none"
    return fields.label or "skipped"


@app.command("label")
@with_client
def label_text(  # noqa: PLR0913 - options
    client: "Client",
    project: Project,
    row: Annotated[int, typer.Argument(metavar="ROW", min=1, help="Row number of the text.")],
    values: Annotated[
        list[str] | None,
        typer.Argument(metavar="LABEL", help="The label, several labels, or the number."),
    ] = None,
    skip: Annotated[bool, typer.Option("--skip", help="It cannot be labeled.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Delete your label.")] = False,
    annotator: Annotator = None,
) -> None:
    """Label a text. With several labels: all that it has, or none."""
    if bool(values) + skip + undo > 1:
        raise UsageError("pass a label, --skip or --undo, only one of them", "wrong_options")
    if undo:
        client.delete_annotation(project, row, annotator)
        print_line(f"Row {row:,}: deleted your label.")
        return
    task = client.get_labeling_project(project).task.type
    body = {"skipped": True} if skip else annotation_body(task, values or [])
    stored = client.update_annotation(project, row, {**body, "annotator": annotator})
    print_line(f"Row {row:,}: {describe_label(stored)}.")


def annotation_body(task: str, values: list[str]) -> dict[str, Any]:
    """Return the field of a label. Raises `UsageError`."""
    if task == "multi_label":
        return {"labels": values}
    if len(values) != 1:
        raise UsageError(f"the task {task} needs exactly one label", "label_count")
    if task == "single_label":
        return {"label": values[0]}
    try:
        return {"value": float(values[0])}
    except ValueError as error:
        raise UsageError(f"{values[0]!r} is not a number", "not_a_number") from error


@app.command("add-labels")
@with_client
def add_project_labels(
    client: "Client",
    project: Project,
    labels: Annotated[list[str], typer.Argument(metavar="LABEL", help="Labels to add.")],
) -> None:
    """Add labels to a project."""
    changed = client.add_project_labels(project, labels)
    print_line(f"{changed.name} has {', '.join(each.name for each in changed.labels)}.")


@app.command("export")
@with_client
def create_labeled_dataset(
    client: "Client",
    project: Project,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the dataset [that of the project].")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a dataset of the labels so far, to train on."""
    dataset = client.create_labeled_dataset(project, name)
    if as_json:
        print_json(dataset)
        return
    print_line(f"{dataset.ref} has {dataset.rows:,} labeled texts.")
    print_line(f"Train on it with `loraworks train --data {dataset.ref}`.")


@app.command("delete")
@with_client
def delete_project(client: "Client", project: Project) -> None:
    """Delete a labeling project with all its labels."""
    client.delete_labeling_project(project)
    print_line(f"Deleted labeling project {project}.")
