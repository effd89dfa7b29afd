"""One run from its description to a finished artifact."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from lora_core import artifact, distributed, manifest
from lora_core.adapters import merge_adapters
from lora_core.events import Finished, Observer, Phase, Silence, Started, StopSignal
from lora_core.failpoints import reach
from lora_core.forward import Forward
from lora_core.progress_reporter import Pulse
from lora_core.saved_predictions import save_golden, save_predictions
from lora_core.specs.data import Split
from lora_core.specs.method import BaselineSpec, LoraSpec, ProbeSpec
from lora_core.specs.train import TrainSpec
from lora_core.training import (
    checkpoint,
    evaluate,
    final_evaluation,
    library_errors,
    misclassified,
    probe,
    probe_learning_curve,
    run_identity,
    verdict,
)
from lora_core.training.checkpoint import Checkpoint
from lora_core.training.checkpoint_schedule import SavePlan
from lora_core.training.chosen import Chosen
from lora_core.training.loop import Trained
from lora_core.training.prepare import Prepared, prepare
from lora_core.training.resume import build_trainer

HELD_OUT = 64  # texts on which the merged model is compared with the unmerged one


def run(  # noqa: PLR0913 - where from, where to, who watches
    spec: TrainSpec,
    *,
    out_dir: Path,
    observer: Observer,
    stop: StopSignal,
    plan: SavePlan | None = None,
    resume: Path | None = None,
    chosen: Chosen | None = None,
) -> dict[str, Any]:
    """Train, evaluate, save; returns the summary.

    `plan`: save checkpoints on the way. `resume`: the directory of one to go on from. `chosen`: how
    the method was selected, if it was. Of several processes (`ranks.joined`) the first speaks and
    saves; the others return nothing. Raises a `LoraCoreError` for every known cause.
    """
    began = time.monotonic()
    if not distributed.is_main():
        observer, plan = Silence(), None
    alone, together = Pulse(observer, stop), Pulse(observer, distributed.Together(stop))
    with library_errors.known(spec):
        alone.enter(Phase.LOADING)
        reach("loading")
        with distributed.main_first():
            prepared, saved = _ready(spec, resume, chosen, observer, alone)
            more_labels = probe_learning_curve.of_run(prepared, alone)
        if isinstance(method := prepared.spec.method, ProbeSpec):
            _announce(1, prepared, observer)
            trained = probe.fit(prepared, method, observer=observer, pulse=together)
        else:
            trainer = build_trainer(
                prepared,
                observer=observer,
                pulse=together,
                plan=plan,
                saved=saved,
                chosen=chosen,
            )
            _announce(trainer.last_step, prepared, observer)
            trained = trainer.train()
        if prepared.spec.trial is not None:
            measured, logits = final_evaluation.of_trial(prepared, trained)
        else:
            measured, logits = final_evaluation.of_run(prepared, trained, observer, together)
        if not distributed.leave():
            return {}
        summary = {**_facts(prepared, trained), **measured}
        summary |= chosen.summary() if chosen else {}
        if more_labels is not None:
            summary["more_labels"] = more_labels.model_dump(mode="json")
        if leaves_model(prepared.spec):
            alone.enter(Phase.JUDGING, trained.steps)
            found = verdict.of_run(prepared, logits[Split.TEST], chosen, alone)
            summary["verdict"] = found.model_dump(mode="json")
        alone.enter(Phase.SAVING, trained.steps)
        reach("saving")
        out_dir.mkdir(parents=True, exist_ok=True)
        graded = final_evaluation.graded(prepared, logits)
        for split, rows in logits.items():
            examples = final_evaluation.answered(prepared, split)
            save_predictions(out_dir, split, examples, rows)
            if leaves_model(prepared.spec):
                temperature = measured["calibration"]["temperature"]
                misclassified.save(out_dir, split, examples, rows, summary["labels"], temperature)
        if leaves_model(prepared.spec):
            # Merges: the model has no adapters after it.
            summary["merge_difference"] = _save(out_dir, prepared, alone)
        summary["total_seconds"] = round(time.monotonic() - began, 2)
        manifest.write(out_dir, {**_manifest(prepared, summary), "graded": graded})
    observer.on_event(Finished(summary=summary))
    return summary


def _ready(
    spec: TrainSpec,
    resume: Path | None,
    chosen: Chosen | None,
    observer: Observer,
    pulse: Pulse,
) -> tuple[Prepared, Checkpoint | None]:
    """For the first step, or for the one after the checkpoint."""
    saved = checkpoint.read(resume) if resume is not None else None
    if saved is not None:
        spec = run_identity.as_before(spec, saved.origin.spec)
    if chosen is None:
        return prepare(spec, observer, pulse), saved
    return prepare(spec, observer, pulse, chosen.splits, chosen.cross_validated), saved


def _announce(steps: int, prepared: Prepared, observer: Observer) -> None:
    census = prepared.method.census(prepared.model)
    is_probe = isinstance(prepared.spec.method, ProbeSpec)
    observer.on_event(
        Started(
            total_steps=steps,
            trainable_parameters=census.trainable,
            total_parameters=census.total,
            examples={split: len(part) for split, part in prepared.parts.items()},
            labels=list(prepared.splits.labels),
            device=prepared.runtime.device,
            precision=prepared.runtime.precision,
            threads=prepared.runtime.threads,
            learning_rate=None if is_probe else prepared.learning_rate,
        )
    )


def leaves_model(spec: TrainSpec) -> bool:
    """Whether a run ends with a model, or with figures and answers alone."""
    return spec.trial is None and spec.result.model


def _save(out_dir: Path, prepared: Prepared, pulse: Pulse) -> float:
    """Write the files of the model, and merge it on the way.

    Returns how far merging moved the logits. Raises `NonFiniteWeights`, `MergeMismatch`.
    """
    model, spec = prepared.model, prepared.spec
    held_out = prepared.parts[Split.TEST].head(HELD_OUT)
    texts = [example.text for example in prepared.splits.test[:HELD_OUT]]
    exact = replace(prepared.runtime, precision="fp32")

    def answers(model: PreTrainedModel) -> NDArray[np.float32]:
        budget = spec.optim.micro_batch_tokens
        return evaluate.logits(Forward(model, exact), held_out, budget=budget, pulse=pulse)

    unmerged = answers(model)
    if isinstance(spec.method, LoraSpec):
        state = prepared.method.state(model)
        artifact.save_adapter(out_dir, spec.method, state, prepared.family.model_type)
    merge_adapters(model)
    artifact.save_merged(out_dir, model, prepared.tokenizer, prepared.max_length)
    if isinstance(spec.method, LoraSpec | ProbeSpec) or spec.method == BaselineSpec(blocks=0):
        artifact.save_head(out_dir, model, prepared.family)
    merged = answers(artifact.load_merged(out_dir).to(exact.device))
    difference = artifact.check_merge(unmerged, merged)
    save_golden(out_dir, texts, merged)
    return difference


def _facts(prepared: Prepared, trained: Trained) -> dict[str, Any]:
    census = prepared.method.census(prepared.model)
    pace = trained.pace
    return {
        "labels": list(prepared.splits.labels),
        "trainable_parameters": census.trainable,
        "total_parameters": census.total,
        "examples": {split: len(part) for split, part in prepared.parts.items()},
        "truncated_share": prepared.cut,
        "steps": trained.steps,
        "best_step": trained.best_step,
        "epochs_run": trained.epochs_run,
        "stopped_early": trained.stopped_early,
        "train_seconds": round(pace.seconds, 2),
        "features_found": prepared.forward.found,
        "reviews_per_second": round(pace.reviews / pace.seconds, 2),
        "tokens_per_second": round(pace.tokens / pace.seconds, 1),
        "peak_memory_mb": round(prepared.runtime.peak_memory_mb(), 1),
    }


def _manifest(prepared: Prepared, summary: dict[str, Any]) -> dict[str, Any]:
    temperature = summary.get("calibration", {}).get("temperature")
    return {
        "format": artifact.FORMAT,
        "created_by": manifest.created_by(),
        "spec": prepared.spec.model_dump(mode="json"),
        "encoder": prepared.family.model_type,
        "base_sha256": prepared.base_sha256,
        "labels": list(prepared.splits.labels),
        "max_length": prepared.max_length,
        "data_sha256": prepared.splits.digest,
        **({"calibration": {"temperature": temperature}} if temperature else {}),
        "metrics": summary,
    }
