"""The method `auto`: cross-validate its candidates, then train the best one on all texts."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from lora_core import compatibility, distributed, model_selection
from lora_core.cost_model import SPEED, Costs
from lora_core.cross_validation import Logits, learnable
from lora_core.data.folds import fold_of
from lora_core.data.load import load
from lora_core.data.records import Example, Splits
from lora_core.encoders.load import locate
from lora_core.errors.training import CheckpointMismatch
from lora_core.events import CandidateTried, Observer, Phase, Selected, Silence, StopSignal
from lora_core.model_selection import CandidateResult, Scores, Selection
from lora_core.progress_reporter import Pulse
from lora_core.specs.data import Split
from lora_core.specs.method import AutoSpec, Candidate, LinearSpec
from lora_core.specs.train import SelectBy, StopSpec, TrainSpec
from lora_core.training import checkpoint, library_errors, linear, verdict
from lora_core.training.checkpoint import Checkpoint
from lora_core.training.checkpoint_schedule import SavePlan
from lora_core.training.chosen import Chosen
from lora_core.training.cross_validation import CrossValidation
from lora_core.training.run import run as run_encoder

CHARACTERS_PER_TOKEN = 4.5  # about, to plan by before anything is tokenised


def run(
    spec: TrainSpec,
    *,
    out_dir: Path,
    observer: Observer,
    stop: StopSignal,
    plan: SavePlan | None = None,
    resume: Path | None = None,
) -> dict[str, Any]:
    """Choose, then train, evaluate, save as `training.run` does; returns the summary.

    A checkpoint is of the chosen method: nothing is chosen again on a resume.
    """
    told = observer if distributed.is_main() else Silence()
    with library_errors.known(spec):
        splits = load(spec.data)
        if resume is None:
            chosen = _chosen(spec, splits, told, Pulse(told, stop))
        else:
            chosen = _as_before(spec, splits, checkpoint.read(resume))
    one = spec.of(chosen.selection.method)
    if isinstance(one.method, LinearSpec):
        if not distributed.leave():
            return {}
        if spec.result.model:
            with library_errors.known(spec):
                probe = verdict.probe(spec, splits, Pulse(told, stop))
            chosen = replace(chosen, probe=probe)
        return linear.run(one, out_dir=out_dir, observer=observer, stop=stop, chosen=chosen)
    if chosen.cross_validated is not None:
        one = one.model_copy(update={"stop": StopSpec(select_by=SelectBy.LAST)})
    return run_encoder(
        one,
        out_dir=out_dir,
        observer=observer,
        stop=stop,
        plan=plan,
        resume=resume,
        chosen=chosen,
    )


def _chosen(spec: TrainSpec, splits: Splits, observer: Observer, pulse: Pulse) -> Chosen:
    examples = learnable(spec, splits)
    candidates = _candidates(spec, examples)
    tried = CrossValidation(spec, splits.labels, examples, pulse)
    pulse.enter(Phase.SELECTING)
    results: list[CandidateResult] = []
    scores: list[Scores] = []
    answers: list[Logits] = []
    for number, candidate in enumerate(candidates, start=1):
        began = time.monotonic()
        logits = tried.logits(candidate)
        scores.append(tried.scores(logits))
        answers.append(logits)
        seconds = time.monotonic() - began
        results.append(_result(candidate, scores[-1], logits, tried.truth, seconds))
        observer.on_event(CandidateTried(number=number, of=len(candidates), result=results[-1]))
    best = model_selection.choose(scores)
    found = Selection(texts=len(examples), chosen=best, candidates=tuple(results))
    observer.on_event(Selected(number=best + 1, method=found.method, texts=len(examples)))
    if Split.VALIDATION not in splits.drawn:
        return Chosen(found, splits, None)
    parts = _held_out_once(splits, examples, candidates[best])
    first = answers[best][0]
    return Chosen(found, parts, first[~np.isnan(first[:, 0])])


def _as_before(spec: TrainSpec, splits: Splits, saved: Checkpoint) -> Chosen:
    """As it was chosen when the run began. Raises `CheckpointMismatch`."""
    if saved.selection is None:
        raise CheckpointMismatch(path=saved.name, what="the method was given there, not chosen")
    if saved.cross_validated is None:
        return Chosen(saved.selection, splits, None)
    one = saved.selection.candidates[saved.selection.chosen]
    candidate = Candidate(method=one.method, folds=one.folds, repeats=one.repeats)
    parts = _held_out_once(splits, learnable(spec, splits), candidate)
    return Chosen(saved.selection, parts, saved.cross_validated.numpy())


def _held_out_once(splits: Splits, examples: tuple[Example, ...], candidate: Candidate) -> Splits:
    """All of the examples for training; for validation those that the candidate answered."""
    answered = fold_of(examples, seed=0) < candidate.folds
    validation = tuple(each for each, held in zip(examples, answered, strict=True) if held)
    drawn = splits.drawn - {Split.VALIDATION}  # its texts are in the training part already
    return replace(splits, train=examples, validation=validation, drawn=drawn)


def _candidates(spec: TrainSpec, examples: Sequence[Example]) -> tuple[Candidate, ...]:
    """As planned when the job was created, else planned now."""
    if not isinstance(spec.method, AutoSpec):
        raise TypeError(f"{spec.method.type} is one method")
    if spec.method.candidates is not None:
        return spec.method.candidates
    base = locate(spec.encoder_base, spec.base_revision)
    shape = compatibility.read_shape(base.config, base=base.name, pooling=spec.pooling)
    characters = sum(len(each.text) for each in examples)
    costs = Costs(
        shape=shape,
        optim=spec.optim,
        tokens=min(
            characters / CHARACTERS_PER_TOKEN / len(examples),
            shape.max_length(spec.data.max_length),
        ),
        flops_per_second=SPEED["cuda" if spec.runtime.device.startswith("cuda") else "cpu"],
    )
    return model_selection.plan(len(examples), spec.method.time_budget, costs.seconds)


def _result(
    candidate: Candidate,
    scores: Scores,
    logits: Logits,
    truth: NDArray[np.int64],
    seconds: float,
) -> CandidateResult:
    first = logits[0]
    answered = ~np.isnan(first[:, 0])
    macro_f1 = f1_score(
        truth[answered], first[answered].argmax(axis=1), average="macro", zero_division=0.0
    )
    low, high = scores.interval
    return CandidateResult(
        method=candidate.method,
        folds=candidate.folds,
        repeats=candidate.repeats,
        texts=int(answered.sum()),
        accuracy=scores.accuracy,
        low=low,
        high=high,
        macro_f1=float(macro_f1),
        seconds=round(seconds, 2),
    )
