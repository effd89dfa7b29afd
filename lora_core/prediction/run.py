"""A batch prediction run: from its spec to the finished results."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from lora_core import manifest
from lora_core.atomic_files import is_disk_full
from lora_core.data import table
from lora_core.data.table import Record
from lora_core.errors.training import CheckpointMismatch, DiskFull, StopRequested
from lora_core.events import Finished, Noted, Observer, Phase, StopSignal
from lora_core.failpoints import failpoint
from lora_core.inference.load import load_predictor
from lora_core.prediction import checkpoint
from lora_core.prediction.checkpoint import Logits, PredictionState
from lora_core.progress_reporter import ProgressReporter
from lora_core.specs.data import split_sheet
from lora_core.specs.predict import LABEL, RESULTS, SCORE, SCORES, PredictSpec
from lora_core.training.checkpoint_schedule import CheckpointSchedule, CheckpointSettings

if TYPE_CHECKING:
    from lora_core.inference.linear import LinearPredictor
    from lora_core.inference.predictor import Predictor

    AnyPredictor = Predictor | LinearPredictor

FORMAT = 1  # of the manifest
# Rows that are read, computed and written together. The chunk boundaries decide which texts share a
# batch, and so the last bits of the results; a resumed run keeps them.
CHUNK_ROWS = 256
BATCH_ROWS = 32  # rows computed between two checks for a stop request

Summary = dict[str, Any]
LabelScores = Sequence[tuple[str, float]]  # all labels, highest first


def run(
    spec: PredictSpec,
    *,
    out_dir: Path,
    observer: Observer,
    stop: StopSignal,
    checkpoint_settings: CheckpointSettings | None = None,
    resume: Path | None = None,
) -> Summary:
    """Predict every row, write a directory with `results.jsonl`, and return the counts.

    The same file, model and threads give the same bytes, however often the run was interrupted.
    `resume` is the checkpoint to continue from. Raises `StopRequested`, `DiskFull`,
    `ArtifactCorrupt`, `CheckpointCorrupt`, `CheckpointMismatch`, and what `table.read_records`
    raises.
    """
    progress = ProgressReporter(observer, stop)
    progress.enter_phase(Phase.LOADING)
    predictor = load_predictor(Path(spec.model), threads=spec.runtime.threads)
    labels = predictor.labels
    state = checkpoint.read(resume, labels) if resume else PredictionState(labels)
    schedule = None
    if checkpoint_settings is not None:
        schedule = CheckpointSchedule(
            checkpoint_settings, checkpoint.write, observer, step=state.step
        )
    progress.enter_phase(Phase.PREDICTING, state.step)
    source, sheet = split_sheet(spec.data.source)
    records = table.read_records(Path(source), spec.data.text_column, sheet)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with (out_dir / RESULTS).open("w", encoding="utf-8", newline="") as file:
            results = ResultsWriter(file)
            _PredictionLoop(predictor, state, schedule, progress).run(records, results)
            file.flush()
            os.fsync(file.fileno())
        progress.enter_phase(Phase.SAVING, results.rows)
        summary = _summarize(results, state, observer)
        manifest.write(out_dir, _manifest(spec, results, summary, predictor))
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
    """Writes rows with their predictions, one JSON object per line, and counts the labels.

    Adds to the cells of a row `predicted_label`, its probability `predicted_score`, and
    `predicted_scores`, the probability of every label.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.rows = 0
        self.columns: dict[str, None] = {}  # of all rows, in order of first occurrence
        self.label_counts: Counter[str] = Counter()

    def write(self, records: Sequence[Record], predictions: Sequence[LabelScores]) -> None:
        """Write the next rows with their predictions."""
        for record, scores in zip(records, predictions, strict=True):
            label, score = scores[0]
            prediction = {LABEL: label, SCORE: score, SCORES: dict(scores)}
            line = json.dumps({**record.cells, **prediction}, ensure_ascii=False, allow_nan=False)
            self._file.write(line + "\n")
            self.columns.update(dict.fromkeys(record.cells))
            self.label_counts[label] += 1
        self.rows += len(records)


@dataclass
class _PredictionLoop:
    """Predicts a file chunk by chunk. Rows that `state` holds already are not computed again."""

    predictor: "AnyPredictor"
    state: PredictionState
    schedule: CheckpointSchedule[PredictionState] | None
    progress: ProgressReporter

    def run(self, records: Iterator[Record], results: ResultsWriter) -> None:
        """Predict and write all rows, from the first."""
        resumed_rows, saved_logits = self.state.step, self.state.logits()
        while chunk := list(islice(records, _chunk_rows(resumed_rows - results.rows))):
            self.progress.tick(self.state.step)
            if results.rows < resumed_rows:
                logits = saved_logits[results.rows : results.rows + len(chunk)]
            else:
                logits = self._compute(chunk)
            results.write(chunk, self.predictor.decode(logits))
        if results.rows < resumed_rows:
            what = f"the file has {results.rows:,} rows, not the {resumed_rows:,} that it holds"
            raise CheckpointMismatch(path="to resume from", what=what)

    def _compute(self, chunk: list[Record]) -> Logits:
        """Compute the logits (rows, labels) of the next rows and add them to the state."""
        items = self.predictor.encode([record.text for record in chunk])
        logits = np.empty((len(chunk), len(self.state.labels)), dtype=np.float32)
        order = np.argsort([item.length for item in items], kind="stable")
        for indices in np.array_split(order, range(BATCH_ROWS, len(order), BATCH_ROWS)):
            self.progress.tick()
            logits[indices] = self.predictor.forward([items[i] for i in indices])
        failpoint("answered")
        self.state.append(logits, truncated=sum(item.truncated for item in items))
        if self.schedule is not None and self.schedule.is_due():
            self.schedule.save(self.state)
        return logits


def _chunk_rows(resumed_rows_left: int) -> int:
    """Return the size of the next chunk. No chunk mixes resumed rows with others."""
    return min(resumed_rows_left, CHUNK_ROWS) if resumed_rows_left > 0 else CHUNK_ROWS


def _summarize(results: ResultsWriter, state: PredictionState, observer: Observer) -> Summary:
    if state.truncated:
        share = f"{state.truncated:,} of {results.rows:,} texts"
        message = f"{share} were longer than the model reads and were truncated."
        observer.on_event(Noted(level="warning", code="truncated", message=message))
    return {"rows": results.rows, "cut": state.truncated, "predicted": dict(results.label_counts)}


def _manifest(
    spec: PredictSpec, results: ResultsWriter, summary: Summary, predictor: "AnyPredictor"
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "created_by": manifest.created_by(),
        "spec": spec.model_dump(mode="json"),
        "columns": list(results.columns),
        "labels": predictor.labels,
        "metrics": summary,
    }
