"""One run, from its spec to a finished artifact."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from lora_core import artifact, distributed, manifest, nearest_examples, runtime
from lora_core.cross_validation import AutoSelectionResult
from lora_core.encoders.load import weights_sha256
from lora_core.errors.training import CheckpointMismatch
from lora_core.events import Finished, NullObserver, Observer, Phase, Started, StopSignal
from lora_core.failpoints import failpoint
from lora_core.forward import Forward, WindowedForward
from lora_core.progress_reporter import ProgressReporter
from lora_core.saved_predictions import save_golden_predictions, save_predictions
from lora_core.specs.data import Split
from lora_core.specs.method import LastLayersBaselineSpec, LoraSpec, ProbeSpec
from lora_core.specs.train import TrainSpec
from lora_core.training import (
    checkpoint,
    final_evaluation,
    model_outputs,
    probe,
    probe_learning_curve,
    verdict,
)
from lora_core.training.checkpoint import SavedCheckpoint
from lora_core.training.checkpoint_schedule import CheckpointSettings
from lora_core.training.correctness import (
    EncodedCorrectness,
    grade_predictions,
    save_misclassified,
)
from lora_core.training.example_index import build_run_example_index
from lora_core.training.final_evaluation import RunEvaluation
from lora_core.training.loop import TrainingResult
from lora_core.training.prepare import PreparedRun, prepare_run
from lora_core.training.resume import build_or_resume_trainer, fill_unset_settings_from_saved

MERGE_CHECK_TEXTS = 64  # on which the logits of the merged and the unmerged model are compared


def train_encoder(  # noqa: PLR0913
    spec: TrainSpec,
    *,
    out_dir: Path,
    observer: Observer,
    stop: StopSignal,
    checkpoint_settings: CheckpointSettings | None = None,
    resume: Path | SavedCheckpoint | None = None,
    selected: AutoSelectionResult | None = None,
) -> dict[str, Any]:
    """Train, evaluate and save a model; return the summary.

    Args:
        spec: The run. Its method is not `auto` or `linear`.
        out_dir: Directory of the artifact.
        observer: Receives the events of the run.
        stop: Is polled between two steps.
        checkpoint_settings: Save checkpoints during training.
        resume: A checkpoint to continue from, or its directory.
        selected: How `auto` selected the method, if it did.

    With several processes (`distributed.process_group`), only rank 0 reports events, saves, and
    returns a summary. Raises a `LoraCoreError` for every known cause.
    """
    started = selected.started if selected else time.monotonic()
    if not distributed.is_main_process():
        observer, checkpoint_settings = NullObserver(), None
    # While preparing, fitting the linear model and saving, a rank stops on its own; in between, all
    # stop at the same step.
    local = ProgressReporter(observer, stop)
    shared = ProgressReporter(observer, distributed.DistributedStopSignal(stop))
    with runtime.convert_resource_errors(spec):
        local.enter_phase(Phase.LOADING)
        failpoint("loading")
        with distributed.main_process_first():
            prepared, saved = _prepare(spec, resume, selected, observer, local)
            more_labels = probe_learning_curve.estimate_label_gain(prepared, local)
        if isinstance(method := prepared.spec.method, ProbeSpec):
            _report_started(1, prepared, observer)
            result = probe.fit_probe_head(prepared, method, observer=observer, progress=shared)
        else:
            trainer = build_or_resume_trainer(
                prepared,
                observer=observer,
                progress=shared,
                checkpoint_settings=checkpoint_settings,
                saved=saved,
                selected=selected,
            )
            _report_started(trainer.last_step, prepared, observer)
            result = trainer.train()
        if prepared.spec.trial is not None:
            evaluation = final_evaluation.evaluate_partial_run(prepared, result)
        else:
            evaluation = final_evaluation.evaluate_run(
                prepared, result, observer, local=local, shared=shared
            )
        if not distributed.destroy_group_and_check_main():
            return {}
        summary = {**_run_summary(prepared, result), **evaluation.metrics}
        summary |= selected.summary() if selected else {}
        if more_labels is not None:
            summary["more_labels"] = more_labels.model_dump(mode="json")
        if saves_model(prepared.spec):
            local.enter_phase(Phase.VERDICT, result.steps)
            assessment = verdict.verdict_of_run(prepared, spec.optim, evaluation, selected, local)
            summary["verdict"] = assessment.model_dump(mode="json")
        local.enter_phase(Phase.SAVING, result.steps)
        failpoint("saving")
        out_dir.mkdir(parents=True, exist_ok=True)
        facts: dict[str, Any] = {"correctness": _save_predictions(out_dir, prepared, evaluation)}
        if saves_model(prepared.spec):
            index = build_run_example_index(prepared, local)
            nearest_examples.save_index(out_dir, index)
            facts[nearest_examples.MANIFEST_KEY] = index.manifest_entry()
            # From here on, the model has no adapters.
            summary["merge_difference"], merged_sha256 = _merge_and_save_model(
                out_dir, prepared, local
            )
            facts["merged_sha256"] = merged_sha256
        summary["total_seconds"] = round(time.monotonic() - started, 2)
        manifest.create_and_save(out_dir, {**_manifest(prepared, summary), **facts})
    observer.on_event(Finished(summary=summary))
    return summary


def _prepare(
    spec: TrainSpec,
    resume: Path | SavedCheckpoint | None,
    selected: AutoSelectionResult | None,
    observer: Observer,
    progress: ProgressReporter,
) -> tuple[PreparedRun, SavedCheckpoint | None]:
    """Prepare the run and read the checkpoint that it continues from.

    Raises `CheckpointMismatch` for a checkpoint that the method could not have written.
    """
    if resume is not None and isinstance(spec.method, ProbeSpec):
        raise CheckpointMismatch(path=resume.name, what="the method probe has no checkpoints")
    saved = checkpoint.read_verified(resume) if isinstance(resume, Path) else resume
    if saved is not None:
        spec = fill_unset_settings_from_saved(spec, saved.identity.spec)
    if selected is None:
        return prepare_run(spec, observer, progress), saved
    prepared = prepare_run(spec, observer, progress, selected.splits, selected.cross_validated)
    return prepared, saved


def _report_started(steps: int, prepared: PreparedRun, observer: Observer) -> None:
    counts = prepared.method.count_parameters(prepared.model)
    observer.on_event(
        Started(
            total_steps=steps,
            trainable_parameters=counts.trainable,
            total_parameters=counts.total,
            examples={split: len(data) for split, data in prepared.tokenized.items()},
            labels=list(prepared.task.labels),
            device=prepared.runtime.device,
            precision=prepared.runtime.precision,
            threads=prepared.runtime.threads,
            learning_rate=_peak_learning_rate(prepared),
        )
    )


def _peak_learning_rate(prepared: PreparedRun) -> float | None:
    """Return the highest learning rate of the schedule. A probe has none."""
    return None if isinstance(prepared.spec.method, ProbeSpec) else prepared.learning_rate


def saves_model(spec: TrainSpec) -> bool:
    """Return whether a run saves a model, not only metrics and predictions."""
    return spec.trial is None and spec.result.model


def leaves_encoder_unchanged(spec: TrainSpec) -> bool:
    """Return whether a run leaves the encoder as it is, except for adapters beside it."""
    return isinstance(spec.method, LoraSpec | ProbeSpec) or spec.method == LastLayersBaselineSpec(
        blocks=0
    )


def _save_predictions(
    out_dir: Path, prepared: PreparedRun, evaluation: RunEvaluation
) -> dict[Split, EncodedCorrectness]:
    """Write the predictions for each split; return how well each text is predicted."""
    task, calibration = prepared.task, evaluation.calibration
    correctness = {}
    for split, logits in evaluation.logits.items():
        examples = final_evaluation.evaluated_examples(prepared, split)
        predicted = task.predict(logits, calibration)
        save_predictions(
            out_dir, split, examples, logits, map(task.prediction_to_target, predicted)
        )
        correctness[split] = grade_predictions(examples, task, predicted)
        if calibration is not None and saves_model(prepared.spec):
            save_misclassified(out_dir, split, examples, logits, task, calibration)
    return correctness


def _merge_and_save_model(
    out_dir: Path, prepared: PreparedRun, progress: ProgressReporter
) -> tuple[float, str]:
    """Merge the adapters of the model, and write its files.

    Returns how far merging moved the logits, and the sha256 of the merged weights. Raises
    `NonFiniteMergedWeights`, `MergeMismatch`.
    """
    model, spec = prepared.model, prepared.spec
    test = prepared.tokenized[Split.TEST].first_texts(MERGE_CHECK_TEXTS)
    texts = [example.input for example in prepared.splits.test[:MERGE_CHECK_TEXTS]]
    fp32 = replace(prepared.runtime, precision="fp32")

    def compute_logits(model: PreTrainedModel) -> NDArray[np.float32]:
        budget = spec.optim.micro_batch_tokens
        forward = Forward(model, fp32)
        if test.windows is not None:
            forward = WindowedForward(forward)
        return model_outputs.compute_logits(forward, test, budget=budget, progress=progress)

    unmerged = compute_logits(model)
    if leaves_encoder_unchanged(spec):
        adapters = spec.method if isinstance(spec.method, LoraSpec) else None
        artifact.save_base_adapter_and_head(
            out_dir, model, prepared.family, prepared.tokenizer, adapters
        )
    else:
        pairs = prepared.splits.are_pairs
        artifact.save_merged_model(
            out_dir, model, prepared.tokenizer, prepared.max_length, pairs=pairs
        )
    # The merged model is loaded back, so that this checks the files too.
    loaded = artifact.load_merged_model(out_dir)
    merged_sha256 = weights_sha256(loaded.state_dict())
    merged = compute_logits(loaded.to(fp32.device))
    difference = artifact.check_merged_logits(unmerged, merged)
    save_golden_predictions(out_dir, texts, merged)
    return difference, merged_sha256


def _run_summary(prepared: PreparedRun, result: TrainingResult) -> dict[str, Any]:
    counts = prepared.method.count_parameters(prepared.model)
    throughput = result.throughput
    return {
        "labels": list(prepared.task.labels),
        "trainable_parameters": counts.trainable,
        "total_parameters": counts.total,
        "examples": {split: len(data) for split, data in prepared.tokenized.items()},
        "truncated_share": prepared.truncated_share,
        "steps": result.steps,
        "best_step": result.best_step,
        "epochs_run": result.epochs_run,
        "stopped_early": result.stopped_early,
        "learning_rate": _peak_learning_rate(prepared),
        "train_seconds": round(throughput.seconds, 2),
        "features_found": prepared.forward.cache_hit,
        "reviews_per_second": round(throughput.texts / throughput.seconds, 2),
        "tokens_per_second": round(throughput.tokens / throughput.seconds, 1),
        "peak_memory_mb": round(prepared.runtime.peak_memory_mb(), 1),
    }


def _manifest(prepared: PreparedRun, summary: dict[str, Any]) -> dict[str, Any]:
    fitted = summary.get("calibration", {})
    calibration = {name: value for name, value in fitted.items() if name not in {"fitted", *Split}}
    return {
        "format": manifest.FORMAT_VERSION,
        "created_by": manifest.installed_library_versions(),
        "spec": prepared.spec.model_dump(mode="json"),
        "encoder": prepared.family.model_type,
        "base_sha256": prepared.base_sha256,
        "labels": list(prepared.task.labels),
        "max_length": prepared.max_length,
        "data_sha256": prepared.splits.digest,
        **({"calibration": calibration} if calibration else {}),
        "metrics": summary,
    }
