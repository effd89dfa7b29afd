"""Build the trainer of a prepared run, from scratch or from a checkpoint."""

from functools import partial

from lora_core import environment
from lora_core.cross_validation import SelectedMethod
from lora_core.errors.training import CheckpointCorrupt, CheckpointMismatch
from lora_core.events import Observer, Resumed
from lora_core.progress_reporter import ProgressReporter
from lora_core.specs.train import HeadInit
from lora_core.training import checkpoint, probe, run_identity
from lora_core.training.checkpoint import SavedCheckpoint
from lora_core.training.checkpoint_schedule import CheckpointSchedule, CheckpointSettings
from lora_core.training.loop import Trainer
from lora_core.training.prepare import PreparedRun
from lora_core.training.run_identity import RunIdentity


def build_trainer(
    prepared: PreparedRun,
    *,
    observer: Observer,
    progress: ProgressReporter,
    checkpoint_settings: CheckpointSettings | None,
    saved: SavedCheckpoint | None,
    selected: SelectedMethod | None = None,
) -> Trainer:
    """Return a trainer at its first step, or at the step of the checkpoint `saved`.

    `selected` goes into each checkpoint that the trainer writes. A resume is reported to
    `observer`. Raises `CheckpointMismatch`, `CheckpointCorrupt`, `NonFiniteStates`.
    """
    # A checkpoint includes the head.
    if saved is None and prepared.spec.head_init is HeadInit.PROBE:
        probe.init_head(prepared, progress)
    if checkpoint_settings is None and saved is None:
        return Trainer(prepared, observer=observer, progress=progress)
    identity = run_identity.identify(prepared)
    step = saved.trainer_state.step if saved is not None else 0
    checkpoints = None
    if checkpoint_settings is not None:
        write = partial(checkpoint.write, identity=identity, selected=selected)
        checkpoints = CheckpointSchedule(checkpoint_settings, write, observer, step=step)
    trainer = Trainer(prepared, observer=observer, progress=progress, checkpoints=checkpoints)
    if saved is not None:
        _restore(trainer, saved, identity)
    return trainer


def _restore(trainer: Trainer, saved: SavedCheckpoint, current: RunIdentity) -> None:
    if what := run_identity.first_difference(saved.identity, current):
        raise CheckpointMismatch(path=saved.name, what=f"{what} differs")
    if problem := trainer.state.find_mismatch(saved.trainer_state, saved.tensors):
        raise CheckpointCorrupt(path=saved.name, problem=problem)
    trainer.state.restore(saved.trainer_state, saved.tensors)
    differences = environment.differences(saved.identity.environment, current.environment)
    trainer.observer.on_event(
        Resumed(step=saved.trainer_state.step, exact=not differences, differences=differences)
    )
