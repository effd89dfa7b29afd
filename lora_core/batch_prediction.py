"""A batch prediction run: from its spec to the finished results."""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from lora_core import manifest
from lora_core.atomic_files import atomic_path, is_disk_full
from lora_core.data import files
from lora_core.data.files import WholeRow
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.errors.training import CheckpointCorrupt, CheckpointMismatch, DiskFull, StopRequested
from lora_core.events import Finished, NoteLogged, Observer, Phase, StopSignal
from lora_core.failpoints import failpoint
from lora_core.inference.load import describe_engine_build, load_native_or_torch_predictor
from lora_core.progress_reporter import ProgressReporter
from lora_core.specs.data import parse_sheet_suffix
from lora_core.specs.encoded_labels import qualified_output_name
from lora_core.specs.predict import (
    HIGH,
    LABEL,
    LABELS,
    LOW,
    RESULTS_FILE,
    SCORE,
    SCORES,
    TARGETS,
    VALUE,
    PredictSpec,
)
from lora_core.specs.task import TaskType
from lora_core.tasks.base import Task
from lora_core.tasks.several_targets import SeveralTargets
from lora_core.training.checkpoint_schedule import CheckpointSaver, CheckpointSettings

if TYPE_CHECKING:
    from lora_core.inference.decoding import DecodedOutput
    from lora_core.inference.linear import LinearPredictor
    from lora_core.inference.predictor import Predictor

    AnyPredictor = Predictor | LinearPredictor

FORMAT_VERSION = 1  # of the manifest
# Rows that are read, computed and written together. The chunk boundaries decide which texts share a
# batch, and so the last bits of the results; a resumed run keeps them.
CHUNK_ROWS = 256
BATCH_ROWS = 32  # rows computed between two checks for a stop request

Summary = dict[str, Any]
Logits = NDArray[np.float32]  # (rows, labels)


@dataclass
class PredictionState:
    """How many rows are predicted, and their logits if a checkpoint will have them."""

    labels: Sequence[str]
    engine: str  # what computed them
    step: int = 0  # number of predicted rows
    chunks: list[Logits] = field(default_factory=list)
    truncated: int = 0  # texts that were longer than the model reads
    model_sha256: str = ""  # of the manifest of the model
    texts: "hashlib._Hash" = field(default_factory=hashlib.sha256)  # of all rows so far
    resumed_texts_sha256: str = ""  # of the rows in the checkpoint

    def append(self, logits: Logits, *, truncated: int, keep: bool) -> None:
        """Count the next rows, and `keep` their logits."""
        self.step += len(logits)
        self.truncated += truncated
        if keep:
            self.chunks.append(logits)


def predict_file(
    spec: PredictSpec,
    *,
    out_dir: Path,
    observer: Observer,
    stop: StopSignal,
    checkpoint_settings: CheckpointSettings | None = None,
    resume: Path | None = None,
) -> Summary:
    """Predict every row, write a directory with `results.jsonl`, and return the counts.

    The same file, model, engine and threads give the same bytes, however often the run was
    interrupted. `resume` is the checkpoint to continue from; one of another engine, such as that of
    another machine, is not used. Raises `StopRequested`, `DiskFull`,
    `ArtifactCorrupt`, `CheckpointCorrupt`, `CheckpointMismatch`, and what `files.iter_whole_rows`
    raises.
    """
    progress = ProgressReporter(observer, stop)
    progress.enter_phase(Phase.LOADING)
    predictor = load_native_or_torch_predictor(Path(spec.model), threads=spec.runtime.threads)
    model_sha256 = manifest.file_sha256(Path(spec.model) / manifest.MANIFEST_FILE)
    engine = describe_engine_build(predictor)
    state = PredictionState(predictor.labels, engine, model_sha256=model_sha256)
    if resume:
        saved = read_checkpoint(resume, predictor.labels, model_sha256)
        if saved.engine == state.engine:
            state = saved
        else:
            before = saved.engine or "another engine"
            message = f"Rows predicted by {before} are predicted again by {state.engine}."
            observer.on_event(NoteLogged(level="warning", code="engine_changed", message=message))
    schedule = None
    if checkpoint_settings is not None:
        schedule = CheckpointSaver(checkpoint_settings, write_checkpoint, observer, step=state.step)
    progress.enter_phase(Phase.PREDICTING, state.step)
    source, sheet = parse_sheet_suffix(spec.data.source)
    records = files.iter_whole_rows(
        Path(source), spec.data.text_column, sheet, pair_column=spec.data.text_pair_column
    )
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with (out_dir / RESULTS_FILE).open("w", encoding="utf-8", newline="") as file:
            results = ResultsWriter(file, predictor.task)
            _PredictionLoop(predictor, state, schedule, progress).run(records, results)
            file.flush()
            os.fsync(file.fileno())
        progress.enter_phase(Phase.SAVING, results.rows)
        summary = _summarize(results, state, observer)
        manifest.create_and_save(out_dir, _manifest(spec, results, summary, predictor))
    except StopRequested:
        if schedule is not None:
            schedule.save(state)
        raise
    except OSError as error:
        if is_disk_full(error):
            raise DiskFull(what="the results") from error
        raise
    observer.on_event(Finished(summary=summary))
    return summary


class ResultsWriter:
    """Writes rows with their predictions, one JSON object per line, and summarizes these.

    Adds to the cells of a row, of a single-label task: `predicted_label`, its probability
    `predicted_score`, and `predicted_scores`, the probability of every label. Multi-label:
    `predicted_labels`, sorted, and `predicted_scores`. Regression: `predicted_value` and its
    interval, `predicted_low` and `predicted_high`, which are null without one. Several targets:
    `predicted_targets`, an object of these for each target.
    """

    def __init__(self, file: TextIO, task: Task) -> None:
        self._file = file
        self._tally = _tally(task)
        self.rows = 0
        self.columns: dict[str, None] = {}  # of all rows, in order of first occurrence

    def write(
        self, records: Sequence[WholeRow], predictions: Sequence[Sequence["DecodedOutput"]]
    ) -> None:
        """Write the next rows with their predictions."""
        for record, outputs in zip(records, predictions, strict=True):
            cells = {**record.cells, **self._tally.add(outputs)}
            line = json.dumps(cells, ensure_ascii=False, allow_nan=False)
            self._file.write(line + "\n")
            self.columns.update(dict.fromkeys(record.cells))
        self.rows += len(records)

    def summary(self) -> Summary:
        """Return how often each label is predicted, and which numbers."""
        return self._tally.summary()


class _TaskTally:
    """Counts what is predicted for a task with one target."""

    def __init__(self, task: TaskType) -> None:
        self._task = task
        self.label_counts: Counter[str] = Counter()
        self.unlabeled = 0  # rows without any label
        self.values: list[float] = []  # of a regression

    def add(self, outputs: Sequence["DecodedOutput"]) -> dict[str, Any]:
        """Count the prediction of a row, and return its cells."""
        best = outputs[0]
        if self._task == "regression":
            self.values.append(best.score)
            return {VALUE: best.score, LOW: best.low, HIGH: best.high}
        scores = {output.label: output.score for output in outputs}
        if self._task == "multi_label":
            labels = sorted(output.label for output in outputs if output.predicted)
            self.label_counts.update(labels)
            self.unlabeled += not labels
            return {LABELS: labels, SCORES: scores}
        self.label_counts[best.label] += 1
        return {LABEL: best.label, SCORE: best.score, SCORES: scores}

    def summary(self) -> Summary:
        """Return how often each label is predicted, or which numbers."""
        summary: Summary = {"predicted": dict(self.label_counts)}
        if self._task == "multi_label":
            summary["unlabeled"] = self.unlabeled
        if self.values:
            summary["value"] = {
                "mean": fmean(self.values),
                "min": min(self.values),
                "max": max(self.values),
            }
        return summary


class _TargetTallies:
    """Counts what is predicted for several targets."""

    def __init__(self, task: SeveralTargets) -> None:
        self._tallies = {name: _TaskTally(each.type) for name, each in task.tasks.items()}

    def add(self, outputs: Sequence["DecodedOutput"]) -> dict[str, Any]:
        """Count the prediction of a row, and return its cells."""
        of_targets = {
            name: tally.add([output for output in outputs if output.target == name])
            for name, tally in self._tallies.items()
        }
        return {TARGETS: of_targets}

    def summary(self) -> Summary:
        """Return the counts of all labels, as TARGET/LABEL, of rows without any, and `values`."""
        summaries = {name: tally.summary() for name, tally in self._tallies.items()}
        predicted = {
            qualified_output_name(name, label): count
            for name, summary in summaries.items()
            for label, count in summary["predicted"].items()
        }
        values = {name: each["value"] for name, each in summaries.items() if "value" in each}
        unlabeled = {
            name: each["unlabeled"] for name, each in summaries.items() if "unlabeled" in each
        }
        return {"predicted": predicted, "unlabeled_by_target": unlabeled, "values": values}


def _tally(task: Task) -> _TaskTally | _TargetTallies:
    if isinstance(task, SeveralTargets):
        return _TargetTallies(task)
    return _TaskTally(task.type)


@dataclass
class _PredictionLoop:
    """Predicts a file chunk by chunk. Rows that `state` holds already are not computed again."""

    predictor: "AnyPredictor"
    state: PredictionState
    schedule: CheckpointSaver[PredictionState] | None
    progress: ProgressReporter

    def run(self, records: Iterator[WholeRow], results: ResultsWriter) -> None:
        """Predict and write all rows, from the first."""
        if self.state.chunks:
            self._write_resumed(records, results)
        while chunk := list(islice(records, CHUNK_ROWS)):
            self.progress.tick(self.state.step)
            results.write(chunk, self.predictor.decode_outputs(self._compute(chunk)))

    def _write_resumed(self, records: Iterator[WholeRow], results: ResultsWriter) -> None:
        """Write the rows whose logits are known. Raises `CheckpointMismatch` for another file."""
        for logits in self.state.chunks:
            self.progress.tick(self.state.step)
            chunk = list(islice(records, len(logits)))
            if len(chunk) < len(logits):
                rows = results.rows + len(chunk)
                what = f"the file has {rows:,} rows, not the {self.state.step:,} that it holds"
                raise CheckpointMismatch(path="to resume from", what=what)
            files.add_texts_to_digest(self.state.texts, chunk)
            results.write(chunk, self.predictor.decode_outputs(logits))
        if self.state.texts.hexdigest() != self.state.resumed_texts_sha256:
            raise CheckpointMismatch(path="to resume from", what="the file has other texts")

    def _compute(self, chunk: list[WholeRow]) -> Logits:
        """Compute the logits (rows, labels) of the next rows and add them to the state."""
        items = self.predictor.encode([record.text for record in chunk])
        logits = np.empty((len(chunk), len(self.state.labels)), dtype=np.float32)
        order = np.argsort([item.length for item in items], kind="stable")
        for indices in np.array_split(order, range(BATCH_ROWS, len(order), BATCH_ROWS)):
            self.progress.tick()
            logits[indices] = self.predictor.forward([items[i] for i in indices])
        failpoint("answered")
        files.add_texts_to_digest(self.state.texts, chunk)
        self.state.append(
            logits,
            truncated=sum(item.truncated for item in items),
            keep=self.schedule is not None,
        )
        if self.schedule is not None and self.schedule.is_due():
            self.schedule.save(self.state)
        return logits


def _summarize(results: ResultsWriter, state: PredictionState, observer: Observer) -> Summary:
    if state.truncated:
        share = f"{state.truncated:,} of {results.rows:,} texts"
        message = f"{share} were longer than the model reads and were truncated."
        observer.on_event(NoteLogged(level="warning", code="truncated", message=message))
    return {"rows": results.rows, "cut": state.truncated, **results.summary()}


def _manifest(
    spec: PredictSpec, results: ResultsWriter, summary: Summary, predictor: "AnyPredictor"
) -> dict[str, Any]:
    return {
        "format": FORMAT_VERSION,
        "created_by": manifest.installed_library_versions(),
        "engine": describe_engine_build(predictor),
        "spec": spec.model_dump(mode="json"),
        "columns": list(results.columns),
        "task": predictor.task.type,
        # with scores
        "labels": predictor.labels
        if predictor.task.type in ("single_label", "multi_label")
        else [],
        **_targets(predictor.task),
        "metrics": summary,
    }


def _targets(task: Task) -> dict[str, Any]:
    """Return the task and the labels with scores of each of several targets."""
    if not isinstance(task, SeveralTargets):
        return {}
    return {
        "targets": {
            name: {
                "task": each.type,
                "labels": [] if each.type == "regression" else list(each.labels),
            }
            for name, each in task.tasks.items()
        }
    }


# -- Checkpoints: the logits of the first rows of a file ------------------------------------------

# logits.safetensors   chunks, (rows, labels) in float32, whose names sort in the order of the rows
# manifest.json        number of truncated texts, labels, engine, digests of model, texts and the
#                      other file; last
_CHECKPOINT_KIND = "answers"
_LOGITS_FILE = "logits.safetensors"


def write_checkpoint(parent: Path, state: PredictionState) -> Path:
    """Publish a new directory `step-<rows>` in `parent` and return it. Raises `DiskFull`."""
    directory = parent / f"step-{state.step}"
    if directory.exists():  # of another engine, whose rows are predicted again
        shutil.rmtree(directory)
    with atomic_path(directory, what="a checkpoint") as unfinished:
        unfinished.mkdir()
        chunks = {f"{i:08}": chunk for i, chunk in enumerate(state.chunks)}
        save_file(chunks, unfinished / _LOGITS_FILE)
        manifest_data = {
            "kind": _CHECKPOINT_KIND,
            "labels": list(state.labels),
            "engine": state.engine,
            "cut": state.truncated,
            "model_sha256": state.model_sha256,
            "texts_sha256": state.texts.hexdigest(),
        }
        manifest.create_and_save(unfinished, manifest_data)
    failpoint("answers_published")
    return directory


def read_checkpoint(directory: Path, labels: Sequence[str], model_sha256: str) -> PredictionState:
    """Read a checkpoint of a model with these labels.

    Raises `CheckpointCorrupt`, and `CheckpointMismatch` if the checkpoint is of another model.
    """
    try:
        manifest_data = manifest.verify(directory)
        if manifest_data.get("kind") != _CHECKPOINT_KIND or manifest_data["files"].keys() != {
            _LOGITS_FILE
        }:
            raise CheckpointCorrupt(path=directory.name, problem="it lists other files")
        chunks = [chunk for _, chunk in sorted(load_file(directory / _LOGITS_FILE).items())]
        truncated, saved_labels = manifest_data["cut"], manifest_data["labels"]
    except ArtifactCorrupt as error:
        raise CheckpointCorrupt(path=directory.name, problem=error.detail["problem"]) from error
    except (KeyError, SafetensorError) as error:
        problem = f"{type(error).__name__} while reading it"
        raise CheckpointCorrupt(path=directory.name, problem=problem) from error
    widths = {chunk.shape[1:] for chunk in chunks}
    if saved_labels != list(labels) or widths != {(len(labels),)}:
        raise CheckpointMismatch(path=directory.name, what="the model has other labels")
    if manifest_data.get("model_sha256") != model_sha256:
        raise CheckpointMismatch(path=directory.name, what="the model is another one")
    return PredictionState(
        labels,
        manifest_data["engine"],
        sum(map(len, chunks)),
        chunks,
        int(truncated),
        model_sha256,
        resumed_texts_sha256=manifest_data["texts_sha256"],
    )
