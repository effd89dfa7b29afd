"""From a prepared run to its trainer: at the first step, or where a checkpoint stands."""

from functools import partial

from lora_core import environment
from lora_core.errors.training import CheckpointCorrupt, CheckpointMismatch
from lora_core.events import Observer, Resumed
from lora_core.progress_reporter import Pulse
from lora_core.specs.train import HeadInit
from lora_core.training import checkpoint, probe, run_identity
from lora_core.training.checkpoint import Checkpoint
from lora_core.training.checkpoint_schedule import SavePlan, Saves
from lora_core.training.chosen import Chosen
from lora_core.training.loop import Trainer
from lora_core.training.prepare import Prepared
from lora_core.training.run_identity import Origin


def build_trainer(
    prepared: Prepared,
    *,
    observer: Observer,
    pulse: Pulse,
    plan: SavePlan | None,
    saved: Checkpoint | None,
    chosen: Chosen | None = None,
) -> Trainer:
    """`chosen` goes into each checkpoint. Tells of a resume.

    Raises `CheckpointMismatch`, `CheckpointCorrupt`, `NonFiniteStates`.
    """
    if saved is None and prepared.spec.head_init is HeadInit.PROBE:  # a checkpoint has the head
        probe.start_head(prepared, pulse)
    if plan is None and saved is None:
        return Trainer(prepared, observer=observer, pulse=pulse)
    here = run_identity.of(prepared)
    step = saved.figures.step if saved is not None else 0
    write = partial(checkpoint.write, origin=here, chosen=chosen)
    saves = Saves(plan, write, observer, step=step) if plan is not None else None
    trainer = Trainer(prepared, observer=observer, pulse=pulse, saves=saves)
    if saved is not None:
        _go_on(trainer, saved, here)
    return trainer


def _go_on(trainer: Trainer, saved: Checkpoint, here: Origin) -> None:
    if what := run_identity.foreign(saved.origin, here):
        raise CheckpointMismatch(path=saved.name, what=f"{what} differs")
    if problem := trainer.progress.misfit(saved.figures, saved.tensors):
        raise CheckpointCorrupt(path=saved.name, problem=problem)
    trainer.progress.restore(saved.figures, saved.tensors)
    differences = environment.differences(saved.origin.environment, here.environment)
    trainer.observer.on_event(
        Resumed(step=saved.figures.step, exact=not differences, differences=differences)
    )
