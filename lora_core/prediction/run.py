"""One run from its description to finished results."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_core import manifest
from lora_core.atomic_files import is_no_room
from lora_core.data import table
from lora_core.data.table import Record
from lora_core.errors.training import CheckpointMismatch, DiskFull, Stopped
from lora_core.events import Finished, Noted, Observer, Phase, StopSignal
from lora_core.failpoints import reach
from lora_core.inference.load import load
from lora_core.prediction import answers
from lora_core.prediction.answers import Answers, Logits
from lora_core.prediction.results import Results
from lora_core.progress_reporter import Pulse
from lora_core.specs.data import divided
from lora_core.specs.predict import RESULTS, PredictSpec
from lora_core.training.checkpoint_schedule import SavePlan, Saves

if TYPE_CHECKING:
    from lora_core.inference.linear import LinearPredictor
    from lora_core.inference.predictor import Predictor as EncoderPredictor

    Predictor = EncoderPredictor | LinearPredictor

FORMAT = 1
# Rows that are read, computed and written together. The borders decide which texts share a batch
# and so the last bits of the numbers: a run that goes on keeps to them.
CHUNK = 256
SLICE = 32  # rows computed between two looks for a stop

Summary = dict[str, Any]


def run(
    spec: PredictSpec,
    *,
    out_dir: Path,
    observer: Observer,
    stop: StopSignal,
    plan: SavePlan | None = None,
    resume: Path | None = None,
) -> Summary:
    """Answer every row and write a directory with `results.jsonl`; returns what was counted.

    The same file, model and threads give the same bytes, however often the run was broken off.
    Raises `Stopped`, `DiskFull`, `ArtifactCorrupt`, `CheckpointCorrupt`, `CheckpointMismatch`, and
    what `table.read` raises.
    """
    pulse = Pulse(observer, stop)
    pulse.enter(Phase.LOADING)
    predictor = load(Path(spec.model), threads=spec.runtime.threads)
    known = answers.read(resume, predictor.labels) if resume else Answers(predictor.labels)
    saves = None
    if plan is not None:
        saves = Saves(plan, answers.write, observer, step=known.step)
    pulse.enter(Phase.PREDICTING, known.step)
    source, sheet = divided(spec.data.source)
    records = table.read(Path(source), spec.data.text_column, sheet)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with (out_dir / RESULTS).open("w", encoding="utf-8", newline="") as file:
            written = Results(file)
            _Course(predictor, known, saves, pulse).run(records, written)
            file.flush()
            os.fsync(file.fileno())
        pulse.enter(Phase.SAVING, written.rows)
        summary = _summary(written, known, observer)
        manifest.write(out_dir, _manifest(spec, written, summary, predictor))
    except Stopped:
        if saves is not None:
            saves.save(known)
        raise
    except OSError as error:
        if is_no_room(error):
            raise DiskFull(what="the results") from error
        raise
    observer.on_event(Finished(summary=summary))
    return summary


@dataclass
class _Course:
    """Chunk after chunk. `known` grows; what it holds already is not computed."""

    predictor: "Predictor"
    known: Answers
    saves: Saves[Answers] | None
    pulse: Pulse

    def run(self, records: Iterator[Record], written: Results) -> None:
        """All rows, from the first."""
        begun, saved = self.known.step, self.known.rows()
        while chunk := list(islice(records, _size(begun - written.rows))):
            self.pulse.beat(self.known.step)
            if written.rows < begun:
                logits = saved[written.rows : written.rows + len(chunk)]
            else:
                logits = self._compute(chunk)
            written.write(chunk, self.predictor.decode(logits))
        if written.rows < begun:
            what = f"the file has {written.rows:,} rows, not the {begun:,} that were answered"
            raise CheckpointMismatch(path="to go on from", what=what)

    def _compute(self, chunk: list[Record]) -> Logits:
        """Logits (rows, labels) of the next rows, which are known from then on."""
        encoded = self.predictor.encode([record.text for record in chunk])
        logits = np.empty((len(chunk), len(self.known.labels)), dtype=np.float32)
        order = np.argsort([item.length for item in encoded], kind="stable")
        for indices in np.array_split(order, range(SLICE, len(order), SLICE)):
            self.pulse.beat()
            logits[indices] = self.predictor.forward([encoded[i] for i in indices])
        reach("answered")
        self.known.add(logits, cut=sum(item.truncated for item in encoded))
        if self.saves is not None and self.saves.due():
            self.saves.save(self.known)
        return logits


def _size(left: int) -> int:
    """Of the next chunk. None mixes the `left` known rows with others."""
    return min(left, CHUNK) if left > 0 else CHUNK


def _summary(written: Results, known: Answers, observer: Observer) -> Summary:
    if known.cut:
        share = f"{known.cut:,} of {written.rows:,} texts"
        message = f"{share} were longer than the model reads and were cut."
        observer.on_event(Noted(level="warning", code="truncated", message=message))
    return {"rows": written.rows, "cut": known.cut, "predicted": dict(written.predicted)}


def _manifest(
    spec: PredictSpec, written: Results, summary: Summary, predictor: "Predictor"
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "created_by": manifest.created_by(),
        "spec": spec.model_dump(mode="json"),
        "columns": list(written.columns),
        "labels": predictor.labels,
        "metrics": summary,
    }
