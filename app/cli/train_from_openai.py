"""`loraworks import-openai`: trains a model on the file of an OpenAI fine-tuning job."""

import tempfile
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel

from app.cli import external_model_comparison
from app.cli.datasets import Task, print_finding
from app.cli.errors import UsageError
from app.cli.evaluate import predict_all
from app.cli.files import check_file_creatable, write_file_atomically
from app.cli.labeled_rows import download_dataset_source
from app.cli.models import resolve_version
from app.cli.options import AsJson, with_client
from app.cli.output import Json, print_fields, print_json, print_line
from app.cli.watch import job_failed_error, print_outcome_and_require_success, watch_job_with_hint
from lora_core.specs.fields import looks_like_model_version
from lora_core.specs.method import MethodName
from lora_core.tasks.metric_info import task_type_of_spec

if TYPE_CHECKING:
    from app.cli.client import Client
    from app.cli.external_model_comparison import (
        AnswerFile,
        OldAnswersToUnseenTexts,
        OldModelComparison,
    )
    from app.datasets.schemas import DatasetView
    from app.jobs.schemas import JobView
    from lora_core.data.split import Splits


OPENAI_PATH = "/openai/v1"

File = Annotated[
    Path | None,
    typer.Argument(
        metavar="FILE",
        help="Training file of the OpenAI job: JSONL with messages, or with prompt and completion.",
        exists=True,
        dir_okay=False,
        readable=True,
    ),
]
Validation = Annotated[
    Path | None,
    typer.Option("--validation", help="Validation file of the job.", exists=True, dir_okay=False),
]
Answers = Annotated[
    Path | None,
    typer.Option(
        "--answers",
        help="Answers of the old model, to compare the new one with: JSONL in the same form. Put "
        'the true label, if you know it, into the field "label" of a row.',
        exists=True,
        dir_okay=False,
    ),
]
Name = Annotated[
    str | None,
    typer.Option("--name", help="Name of the dataset and of the model. Default: the file name."),
]
Method = Annotated[
    MethodName | None,
    typer.Option("--method", help="Training method. Default: auto, the best of several."),
]
Base = Annotated[
    str | None,
    typer.Option("--base", help="Base model: minilm-l6, a hub name, or a registered model."),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="In place of FILE: compare the answers with a model that was trained here before: "
        "name (in production), name:3 or ft:….",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", "--output", help="New CSV file for all texts that the models answer differently."
    ),
]


@with_client
def train_from_openai_file(  # noqa: PLR0913 - one parameter per option
    client: "Client",
    file: File = None,
    validation: Validation = None,
    answers: Answers = None,
    name: Name = None,
    task: Task = None,
    method: Method = None,
    base: Base = None,
    model: Model = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Move a fine-tuned OpenAI classifier here: train on its file, compare with its answers.

    Uploads the training file, trains a model on it, and prints how OpenAI clients call the model.
    """
    _check_options(file, answers, model, (validation, name, task, method, base))
    _check_out(out, answers)
    answer_file = external_model_comparison.read_answer_file(answers) if answers else None
    if file is None:
        job = _find_job(client, str(model))
        old = _select_answers(client, answer_file, job.spec)
    else:
        body = _upload(client, file, validation, name, task, quiet=as_json)
        body |= {"method": {"type": method}} if method else {}
        body |= {"base": base} if base else {}
        # Before the training, which a mistake in the answers would waste.
        old = _select_answers(client, answer_file, client.plan_job(body).spec)
        job = _train(client, body, quiet=as_json)
    comparison = _compare(client, job, old) if old else None
    if out and comparison:
        write_file_atomically(
            iter(
                [
                    external_model_comparison.format_differing_texts_as_csv(
                        comparison.differing
                    ).encode()
                ]
            ),
            out,
        )
    report = _print_json if as_json else _print_report
    report(client, job, comparison, out)


def _check_options(
    file: Path | None, answers: Path | None, model: str | None, of_training: Sequence[object]
) -> None:
    """Raise `UsageError`, or a `DataError` of the first rows, before anything is uploaded."""
    if file is not None and model is None:
        _check_training_file(file)
    elif file is not None or model is None or answers is None or any(of_training):
        raise UsageError(
            "give a training file; or, to compare with a model that was trained before, --model "
            "and --answers, without a file, --validation, --name, --task, --method and --base",
            "wrong_usage",
        )


def _check_training_file(file: Path) -> None:
    from app.openai.schemas import MIN_EXAMPLES
    from lora_core.data import chat

    rows = sum(1 for _ in islice(chat.read_examples(file), MIN_EXAMPLES))
    if rows < MIN_EXAMPLES:
        raise UsageError(
            f"{file.name} has {rows} rows; a training file needs at least {MIN_EXAMPLES}",
            "too_few_rows",
        )


def _check_out(out: Path | None, answers: Path | None) -> None:
    if out is None:
        return
    if answers is None:
        raise UsageError("--out needs --answers", "wrong_options")
    if out.suffix.lower() != ".csv":
        raise UsageError(f"--out must end in .csv: {out}", "out_format")
    check_file_creatable(out)


# -- Data and training ----------------------------------------------------------------------------


def _upload(
    client: "Client",
    file: Path,
    validation: Path | None,
    name: str | None,
    task: str | None,
    *,
    quiet: bool,
) -> Json:
    """Upload the files, and return the body of a job that trains on them."""
    dataset = client.upload_dataset(file, name=name, task=task)
    source: str | Json = dataset.ref
    if not quiet:
        _print_dataset(client, dataset)
    if validation is not None:
        held_out = client.upload_dataset(validation, task=task)
        source = {"train": dataset.ref, "validation": held_out.ref}
        if not quiet:
            print_line("")
            print_line(f"Uploaded {validation.name} as {held_out.ref}: {held_out.rows:,} rows.")
    return {"data": {"source": source}, "register_as": dataset.name}


def _print_dataset(client: "Client", dataset: "DatasetView") -> None:
    labels = (f"{label} {count:,}" for label, count in dataset.labels.items())
    print_fields([("dataset", dataset.ref), ("rows", dataset.rows), ("labels", ", ".join(labels))])
    diagnosis = dataset.diagnosis or client.rediagnose_dataset(dataset.id)
    for finding in diagnosis.findings:  # one of them says what the texts leave out of the prompts
        print_finding(finding)


def _train(client: "Client", body: Json, *, quiet: bool) -> "JobView":
    """Run a job to its end. Raises `RunFailed` unless it succeeds."""
    if not quiet:
        print_line("")
    job = watch_job_with_hint(client, client.create_job(body), quiet=quiet)
    if job.state != "succeeded":
        raise job_failed_error(job)
    if not quiet:
        print_outcome_and_require_success(job)
    return job


def _find_job(client: "Client", model: str) -> "JobView":
    """Return the job that trained a model. Raises `UsageError` if none did."""
    from app.openai import ids

    job_id = ids.job_id_in_model_name(model) or resolve_version(client, model).job_id
    job = client.get_job(str(job_id)) if job_id else None
    if job is None or job.model_version is None:
        raise UsageError(
            f"{model} was not trained here, so the texts that it was trained on are unknown; name "
            "a version that a job registered",
            "no_training_job",
        )
    return job


# -- Comparison -----------------------------------------------------------------------------------


def _select_answers(
    client: "Client", file: "AnswerFile | None", spec: Mapping[str, Any]
) -> "OldAnswersToUnseenTexts | None":
    if file is None:
        return None
    task = task_type_of_spec(spec)
    splits, of_base = _load_splits(client, spec), []
    while spec["base"] is not None and looks_like_model_version(spec["base"]):
        base = resolve_version(client, spec["base"])
        if base.job_id is None:  # imported, so its training texts are elsewhere
            break
        spec = client.get_job(str(base.job_id)).spec
        of_base.append(_load_splits(client, spec))
    return external_model_comparison.select_answers_to_unseen_texts(
        file, splits, of_base, task_type=task
    )


def _load_splits(client: "Client", spec: Mapping[str, Any]) -> "Splits":
    """Return the splits of a run as the run itself reads them."""
    from app.cli.json_client import validate_response_body
    from lora_core.data.load import load_splits
    from lora_core.hf_hub import HUB_PREFIX
    from lora_core.samples import reviews
    from lora_core.specs.data import DataSpec
    from lora_core.specs.task import TaskSpec

    class DataAndTask(BaseModel):
        data: DataSpec
        task: TaskSpec

    parsed = validate_response_body(DataAndTask, spec)
    data = parsed.data
    with tempfile.TemporaryDirectory(prefix="loraworks-") as work:

        def local(source: str) -> str:
            if source in reviews.SAMPLES or source.startswith(HUB_PREFIX):
                return source
            dataset = client.get_dataset(source)
            return download_dataset_source(client, dataset, Path(tempfile.mkdtemp(dir=work)))

        source = data.source
        local_source = (
            local(source)
            if isinstance(source, str)
            else {split: local(each) for split, each in source.items()}
        )
        return load_splits(data.model_copy(update={"source": local_source}), parsed.task)


def _compare(
    client: "Client", job: "JobView", old: "OldAnswersToUnseenTexts"
) -> "OldModelComparison":
    model = str(job.model_version)
    info = client.get_model_info(model)
    thresholds = info.thresholds if task_type_of_spec(job.spec) == "multi_label" else None
    predictions = predict_all(client, info, old.texts)
    return external_model_comparison.compare_with_old_model(model, old, predictions, thresholds)


# -- Output ---------------------------------------------------------------------------------------


def _openai_fields(client: "Client", job: "JobView") -> dict[str, str]:
    from app.openai import ids

    name = str(job.model_version).partition(":")[0]
    return {
        "base_url": client.url.rstrip("/") + OPENAI_PATH,
        "openai_model": ids.model_name(job.id, base=job.base or job.method, suffix=name),
    }


def _print_json(
    client: "Client", job: "JobView", comparison: "OldModelComparison | None", out: Path | None
) -> None:
    print_json(
        {
            "model": job.model_version,
            **_openai_fields(client, job),
            "comparison": comparison and external_model_comparison.to_json(comparison),
            "out": out and str(out),
            "job": job,
        }
    )


def _print_report(
    client: "Client", job: "JobView", comparison: "OldModelComparison | None", out: Path | None
) -> None:
    if comparison:
        external_model_comparison.print_external_model_comparison(comparison)
    if out:
        print_line(f"Saved all texts with different answers to {out}.")
    openai = _openai_fields(client, job)
    print_line("")
    print_line("In your program, change the address, the key and the name of the model:")
    print_line(f'  OpenAI(base_url="{openai["base_url"]}", api_key="lw_…")')
    print_line(f'  model="{openai["openai_model"]}"')
    print_line(f"Put it into production with `loraworks models promote {job.model_version}`.")
