"""The verdict on a run on a base: what it takes to judge is computed here."""

import numpy as np
from numpy.typing import NDArray

from lora_core.cross_validation import judges, learnable
from lora_core.data import linear_baseline
from lora_core.data.records import Example, Splits
from lora_core.events import Silence
from lora_core.model_selection import LINEAR, PROBES
from lora_core.progress_reporter import Pulse, Unseen
from lora_core.specs.data import Split
from lora_core.specs.method import Candidate, ProbeSpec
from lora_core.specs.train import TrainSpec
from lora_core.training import probe as probes
from lora_core.training.chosen import Chosen
from lora_core.training.cross_validation import CrossValidation
from lora_core.training.prepare import Prepared, prepare
from lora_core.verdict import Rival, Verdict, judge, majority

# Of the probe that a run is compared with: it costs a pass of the base over each of them.
LEARNED, ANSWERED = 1000, 1000

Logits = NDArray[np.float32]


def of_run(prepared: Prepared, test: Logits, chosen: Chosen | None, pulse: Pulse) -> Verdict:
    """`test` are the logits of the test part. Of few texts all are held out once instead."""
    spec, splits = prepared.spec, prepared.splits
    examples = learnable(spec, splits)
    if judges(spec, examples):
        return _cross_validated(prepared, examples, chosen, pulse)
    rivals = {"linear": _of_all(linear_baseline.fit(splits).test)}
    if not isinstance(spec.method, ProbeSpec):
        rivals["probe"] = probe(spec, splits, pulse)
    return judge(
        prepared.parts[Split.TEST].labels,
        test.argmax(axis=1),
        rivals,
        labels=splits.labels,
        majority=majority(splits.train),
    )


def probe(spec: TrainSpec, splits: Splits, pulse: Pulse) -> Rival:
    """The answers of a probe on the same base.

    Of few texts all are held out once; else it learns from at most `LEARNED` texts and answers at
    most `ANSWERED` test texts, drawn at random.
    """
    examples = learnable(spec, splits)
    if judges(spec, examples):
        tried = CrossValidation(spec, splits.labels, examples, pulse)
        return _of_all(tried.answers(PROBES[0]))
    labels = np.array([example.label for example in splits.train])
    which = np.sort(np.random.default_rng(0).permutation(len(splits.test))[:ANSWERED])
    parts = Splits(
        labels=splits.labels,
        train=tuple(splits.train[i] for i in probes.drawn(labels, LEARNED)),
        validation=(),
        test=tuple(splits.test[i] for i in which),
    )
    method = PROBES[0]
    found = prepare(spec.of(method), Silence(), Unseen(pulse), parts)
    learned, asked = (
        probes.pooled(found, part, np.arange(len(part)), Unseen(pulse))
        for part in (found.parts[Split.TRAIN], found.parts[Split.TEST])
    )
    size = probes.typical_size(learned)
    weight, bias = probes.regression(
        probes.regressors(found, learned, size),
        found.parts[Split.TRAIN].labels,
        method,
        classes=len(splits.labels),
        balanced=found.spec.balanced,
    )
    logits = probes.regressors(found, asked, size) @ weight.T + bias
    return Rival(which, logits.argmax(axis=1))


def _cross_validated(
    prepared: Prepared, examples: tuple[Example, ...], chosen: Chosen | None, pulse: Pulse
) -> Verdict:
    spec, splits = prepared.spec, prepared.splits
    tried = CrossValidation(spec, splits.labels, examples, pulse)
    if chosen is None or chosen.cross_validated is None:
        logits = tried.logits(Candidate(method=spec.encoder_method))[0]
    else:
        logits = chosen.cross_validated
    rivals = {"linear": _of_all(tried.answers(LINEAR[-1]))}
    if not isinstance(spec.method, ProbeSpec):
        rivals["probe"] = _of_all(tried.answers(PROBES[0]))
    return judge(
        tried.truth,
        logits.argmax(axis=1),
        rivals,
        labels=splits.labels,
        majority=majority(examples),
        measured_on="cross_validation",
    )


def _of_all(answers: "NDArray[np.int64] | tuple[int, ...]") -> Rival:
    return Rival(np.arange(len(answers)), np.asarray(answers, dtype=np.int64))
