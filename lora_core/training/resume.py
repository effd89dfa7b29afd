"""Build the trainer of a prepared run, from scratch or from the checkpoint of the same run."""

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path

from lora_core import distributed, runtime_environment
from lora_core.cross_validation import AutoSelectionResult
from lora_core.encoders.load import weights_sha256
from lora_core.errors.training import CheckpointCorrupt, CheckpointMismatch
from lora_core.events import Observer, Resumed
from lora_core.fast import feature_cache
from lora_core.progress_reporter import ProgressReporter
from lora_core.specs.pooling import Pooling
from lora_core.specs.train import HeadInit, TrainSpec
from lora_core.training import checkpoint, probe
from lora_core.training.checkpoint import RunIdentity, SavedCheckpoint
from lora_core.training.checkpoint_schedule import CheckpointSaver, CheckpointSettings
from lora_core.training.loop import Trainer
from lora_core.training.prepare import PreparedRun
from lora_core.training.training_state import TrainingState, checkpoint_parameters


def build_or_resume_trainer(
    prepared: PreparedRun,
    *,
    observer: Observer,
    progress: ProgressReporter,
    checkpoint_settings: CheckpointSettings | None,
    saved: SavedCheckpoint | None,
    selected: AutoSelectionResult | None = None,
) -> Trainer:
    """Return a trainer at its first step, or at the step of the checkpoint `saved`.

    `selected` goes into each checkpoint that the trainer writes. A resume is reported to
    `observer`. Raises `CheckpointMismatch`, `CheckpointCorrupt`, `NonFiniteEncoderStates`.
    """
    # A checkpoint includes the head.
    if saved is None and prepared.spec.head_init is HeadInit.PROBE:
        probe.init_head_with_probe(prepared, progress)
    if checkpoint_settings is None and saved is None:
        return Trainer(prepared, observer=observer, progress=progress)

    @cache
    def identity() -> RunIdentity:
        """Read all weights only for the first checkpoint: those that it leaves out never change."""
        return identify_run(prepared)

    def write(parent: Path, state: TrainingState) -> Path:
        return checkpoint.write(parent, state, identity(), selected)

    step = saved.progress.step if saved is not None else 0
    checkpoints = None
    if checkpoint_settings is not None:
        checkpoints = CheckpointSaver(checkpoint_settings, write, observer, step=step)
    trainer = Trainer(prepared, observer=observer, progress=progress, checkpoints=checkpoints)
    if saved is not None:
        _restore(trainer, saved, identity())
    return trainer


def _restore(trainer: Trainer, saved: SavedCheckpoint, current: RunIdentity) -> None:
    if what := find_run_difference(saved.identity, current):
        raise CheckpointMismatch(path=saved.name, what=f"{what} differs")
    if problem := trainer.state.find_mismatch(saved.progress, saved.tensors):
        raise CheckpointCorrupt(path=saved.name, problem=problem)
    trainer.state.restore(saved.progress, saved.tensors)
    differences = runtime_environment.describe_environment_changes(
        saved.identity.environment, current.environment
    )
    trainer.observer.on_event(
        Resumed(step=saved.progress.step, exact=not differences, differences=differences)
    )


# -- Which run a checkpoint belongs to ------------------------------------------------------------


def identify_run(prepared: PreparedRun) -> RunIdentity:
    """Return the identity of a run, which goes into its checkpoints."""
    budget = prepared.spec.optim.micro_batch_tokens
    return RunIdentity(
        spec=prepared.spec,
        data_sha256=prepared.splits.digest,
        frozen_weights_sha256=_frozen_weights_sha256(prepared),
        environment=runtime_environment.describe_environment(
            prepared.runtime, budget, distributed.world_size()
        ),
    )


def find_run_difference(saved: RunIdentity, current: RunIdentity) -> str | None:
    """Return the first thing that makes these different runs, or None if they are the same."""
    before, after = _determinants(saved), _determinants(current)
    return next((what for what in before if before[what] != after[what]), None)


def run_digest(prepared: PreparedRun) -> str:
    """Return a hash of everything that the results of a run depend on, down to the last bits.

    Call it before the first step: unlike a checkpoint, which contains the weights that train, a
    result also depends on their initial values.
    """
    identity = identify_run(prepared)
    facts = {name: str(value) for name, value in _determinants(identity).items()}
    facts |= {
        "environment": str(sorted(identity.environment.items())),
        "initial weights": weights_sha256(prepared.model.state_dict()),
        "config": feature_cache.serialize_encoder_config(prepared.model),
    }
    if prepared.spec.head_init is HeadInit.PROBE:  # fitted by these; a checkpoint has its head
        facts |= {name: version(name) for name in ("scikit-learn", "scipy")}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def fill_unset_settings_from_saved(spec: TrainSpec, saved: TrainSpec) -> TrainSpec:
    """Fill in what the spec leaves open as the saved spec resolved it.

    Device and precision are taken over only where every machine supports them: CPU and fp32.
    """
    saved = _with_legacy_defaults(saved)
    optim = spec.optim.model_copy(
        update={
            "epochs": spec.optim.epochs or saved.optim.epochs,
            "learning_rate": spec.optim.learning_rate or saved.optim.learning_rate,
            "head_learning_rate": spec.optim.head_learning_rate or saved.optim.head_learning_rate,
            "batch_size": spec.optim.batch_size or saved.optim.batch_size,
        }
    )
    stop = spec.stop.model_copy(update={"select_by": spec.stop.select_by or saved.stop.select_by})
    pooling = saved.pooling if spec.pooling is Pooling.AUTO else spec.pooling
    head_init = saved.head_init if spec.head_init is HeadInit.AUTO else spec.head_init
    runtime: dict[str, object] = {}
    if spec.runtime.threads is None:
        runtime["threads"] = saved.runtime.threads
    if (spec.runtime.device, saved.runtime.device) == ("auto", "cpu"):
        runtime["device"] = "cpu"
    if (spec.runtime.precision, saved.runtime.precision) == ("auto", "fp32"):
        runtime["precision"] = "fp32"
    update = {"optim": optim, "stop": stop, "pooling": pooling, "head_init": head_init}
    return spec.model_copy(update={**update, "runtime": spec.runtime.model_copy(update=runtime)})


def _determinants(identity: RunIdentity) -> dict[str, object]:
    """Return everything that a result depends on, up to rounding.

    The names of base and data are left out, since only their content matters. What decides the
    rounding is compared as the environment.
    """
    spec = _with_legacy_defaults(identity.spec)
    return {
        "method": spec.method,
        "task": spec.task,
        "head_init": spec.head_init,
        "pooling": spec.pooling,
        "optim": spec.optim.model_copy(update={"micro_batch_tokens": 0}),
        "stop": spec.stop,
        "data.max_length": spec.data.max_length,
        "data.long_texts": spec.data.long_texts,
        "runtime.seed": spec.runtime.seed,
        "the data": identity.data_sha256,
        "the base model": identity.frozen_weights_sha256,
    }


def _with_legacy_defaults(spec: TrainSpec) -> TrainSpec:
    """Fill in settings that did not exist yet when an old checkpoint was written.

    All runs then pooled the first token, drew the head at random, and trained it at the learning
    rate of the encoder.
    """
    optim, update = spec.optim, dict[str, object]()
    if spec.pooling is Pooling.AUTO:
        update["pooling"] = Pooling.CLS
    if spec.head_init is HeadInit.AUTO:
        update["head_init"] = HeadInit.RANDOM
    if optim.head_learning_rate is None:
        update["optim"] = optim.model_copy(update={"head_learning_rate": optim.learning_rate})
    return spec.model_copy(update=update)


def _frozen_weights_sha256(prepared: PreparedRun) -> str:
    """Return a hash of the tokenizer and of all base weights that checkpoints leave out."""
    digest = hashlib.sha256(prepared.tokenizer_file.read_bytes())
    in_checkpoint = checkpoint_parameters(prepared.model, prepared.family)
    for name, parameter in prepared.model.named_parameters():
        if name not in in_checkpoint:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().numpy())
    return digest.hexdigest()
