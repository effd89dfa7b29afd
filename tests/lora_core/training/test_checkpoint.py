"""A checkpoint is complete and belongs to the run, or it is refused."""

import errno
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_core.cross_validation import AutoSelectionResult
from lora_core.data.load import load_splits
from lora_core.errors.training import (
    CheckpointCorrupt,
    CheckpointMismatch,
    DiskFull,
    StopRequested,
)
from lora_core.results import CandidateResult, MethodSelection
from lora_core.specs.method import LoraSpec, ProbeSpec
from lora_core.specs.train import TrainSpec
from lora_core.training import checkpoint
from lora_core.training.checkpoint_schedule import CheckpointSettings
from lora_core.training.encoder import train_encoder
from lora_core.training.resume import fill_unset_settings_from_saved
from tests.lora_core.training.damage import DAMAGE, flip, rewrite
from tests.recording_observer import RecordingObserver
from tests.starved import no_descriptors
from tests.tiny_base import make_base, make_reviews

MARKER = "hostile pickle was loaded"
OPENED: list[str] = []  # while the hook is active
LOOKING: list[bool] = []


def note(event: str, arguments: tuple[Any, ...]) -> None:
    if LOOKING and event in {"open", "pickle.find_class"}:
        OPENED.append(f"{event} {arguments[0]}")


sys.addaudithook(note)  # audit hooks cannot be removed


@contextmanager
def looking() -> Iterator[list[str]]:
    """Collects every file that is opened in the block."""
    OPENED.clear()
    LOOKING.append(True)
    try:
        yield OPENED
    finally:
        LOOKING.clear()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with base, data and `step-3`, the checkpoint of a stopped run."""
    place = tmp_path_factory.mktemp("made")
    make_base(place / "base")
    make_reviews(place / "reviews.csv")
    observer = RecordingObserver(stop_at=3)
    with pytest.raises(StopRequested):
        train_encoder(describe(place), out_dir=place / "out", observer=observer, stop=observer,
            checkpoint_settings=CheckpointSettings(place, 300.0))  # fmt: skip
    return place


def describe(place: Path, **changes: Any) -> TrainSpec:
    body: dict[str, Any] = {
        "method": {"type": "lora", "r": 4},
        "base": str(place / "base"),
        "data": {"source": str(place / "reviews.csv")},
        "optim": {"epochs": 1, "learning_rate": 0.01, "batch_size": 8},
        "runtime": {"threads": 1},
        "result": {"cross_validation": False},
    }
    for name, value in changes.items():
        body[name] = {**body.get(name, {}), **value} if isinstance(value, dict) else value
    return TrainSpec.model_validate(body)


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A copy to modify. The same run may resume from another directory."""
    return shutil.copytree(made, tmp_path / "copy")


def resume(place: Path, spec: TrainSpec, step: str = "step-3") -> RecordingObserver:
    observer = RecordingObserver()
    train_encoder(
        spec, out_dir=place / "resumed", observer=observer, stop=observer, resume=place / step
    )
    return observer


def test_selection_without_predictions_of_its_own_is_kept(made: Path, tmp_path: Path) -> None:
    """As with a validation split and too many texts for a verdict by cross-validation."""
    spec = describe(made)
    candidate = CandidateResult(
        method=LoraSpec(r=4), folds=5, repeats=1, texts=9, value=0.5, low=0.4, high=0.6, seconds=1.0
    )
    selection = MethodSelection(texts=9, chosen=0, candidates=(candidate,))
    splits = load_splits(spec.data, spec.task)
    observer = RecordingObserver(stop_at=1)
    with pytest.raises(StopRequested):
        train_encoder(
            spec, out_dir=tmp_path / "out", observer=observer, stop=observer,
            checkpoint_settings=CheckpointSettings(tmp_path, 300.0),
            selected=AutoSelectionResult(selection, splits, None, time.monotonic()),
        )  # fmt: skip
    saved = checkpoint.read_verified(tmp_path / "step-1")
    assert (saved.selection, saved.cross_validated, saved.cross_fitted) == (selection, None, None)


def test_files_of_a_killed_write_are_removed(made: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / ".unfinished"
    unfinished.mkdir()
    (unfinished / "state.json.tmp").touch()
    observer = RecordingObserver(stop_at=1)
    with pytest.raises(StopRequested):
        train_encoder(describe(made), out_dir=tmp_path / "out", observer=observer, stop=observer,
            checkpoint_settings=CheckpointSettings(tmp_path, 300.0))  # fmt: skip
    assert checkpoint.read_verified(tmp_path / "step-1").progress.step == 1
    assert not unfinished.exists()


def test_a_full_disk_leaves_nothing_of_a_checkpoint(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", fail)
    observer = RecordingObserver(stop_at=1)
    with pytest.raises(DiskFull, match="a checkpoint"):
        train_encoder(describe(made), out_dir=tmp_path / "out", observer=observer, stop=observer,
            checkpoint_settings=CheckpointSettings(tmp_path / "saved", 300.0))  # fmt: skip
    assert [*(tmp_path / "saved").iterdir()] == []


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checkpoint_is_refused(damage: str, copy: Path) -> None:
    DAMAGE[damage](copy / "step-3")
    with pytest.raises(CheckpointCorrupt, match="step-3 cannot be used"):
        resume(copy, describe(copy))


def test_error_names_the_missing_tensor(copy: Path) -> None:
    DAMAGE["a moment gone"](copy / "step-3")
    with pytest.raises(CheckpointCorrupt, match=r"optimizer/exp_avg/\S+ is missing"):
        resume(copy, describe(copy))


def test_unreadable_checkpoint_is_not_reported_as_damaged(made: Path) -> None:
    with no_descriptors(), pytest.raises(OSError, match="Too many open files"):
        checkpoint.read_verified(made / "step-3")
    checkpoint.read_verified(made / "step-3")


@pytest.mark.parametrize("at", [i / 40 for i in range(40)])
def test_flipped_manifest_byte_is_harmless_or_detected(
    at: float, made: Path, tmp_path: Path
) -> None:
    """White space and sizes do not matter; other changes are detected."""
    directory = shutil.copytree(made / "step-3", tmp_path / "step-3")
    before = checkpoint.read_verified(directory)
    flip(directory / "manifest.json", at)
    try:
        after = checkpoint.read_verified(directory)
    except (CheckpointCorrupt, CheckpointMismatch):
        return
    assert after.progress == before.progress
    assert all(
        after.tensors[name].equal(before.tensors[name])
        for name in before.tensors
        if "gauss" not in name
    )


OTHER_RUNS: dict[str, dict[str, Any]] = {
    "method": {"method": {"r": 2}},
    "head_init": {"head_init": "random"},
    "pooling": {"pooling": "mean"},
    "optim": {"optim": {"learning_rate": 0.02}},
    "stop": {"stop": {"patience": 3}},
    "task": {"task": {"class_weights": "balanced"}},
    "data.max_length": {"data": {"max_length": 12}},
    "runtime.seed": {"runtime": {"seed": 1}},
    "the data": {"data": {"split_seed": 1}},
}


@pytest.mark.parametrize("what", OTHER_RUNS)
def test_checkpoint_of_another_run_is_refused(what: str, copy: Path) -> None:
    with pytest.raises(CheckpointMismatch, match=f"{what} differs"):
        resume(copy, describe(copy, **OTHER_RUNS[what]))


def test_probe_refuses_every_checkpoint(copy: Path) -> None:
    with pytest.raises(CheckpointMismatch, match="the method probe has no checkpoints"):
        resume(copy, describe(copy).with_method(ProbeSpec()))


def test_different_base_with_the_same_name_is_refused(copy: Path) -> None:
    shutil.rmtree(copy / "base")
    make_base(copy / "base", seed=1)
    with pytest.raises(CheckpointMismatch, match="the base model differs"):
        resume(copy, describe(copy))


def test_newer_format_version_is_refused_with_both_numbers(copy: Path) -> None:
    rewrite(copy / "step-3", version=2)
    with pytest.raises(CheckpointMismatch, match="its format version is 2, this program reads 1"):
        resume(copy, describe(copy))


def test_run_resumes_from_another_directory(copy: Path) -> None:
    resumed = resume(copy, describe(copy)).all("resumed")[0]
    assert (resumed.exact, resumed.differences) == (True, [])


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"runtime": {"threads": 2}}, "threads 1 → 2"),
        pytest.param(
            {"optim": {"micro_batch_tokens": 64}},
            "micro_batch_tokens 4096 → 64",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_changed_runtime_resumes_inexactly_and_reports_it(
    changes: dict[str, Any], difference: str, copy: Path
) -> None:
    resumed = resume(copy, describe(copy, **changes)).all("resumed")[0]
    assert (resumed.exact, resumed.differences) == (False, [difference])


@pytest.mark.parametrize("saved", ["fp32", "bf16"])
def test_a_precision_that_every_machine_has_is_taken_from_the_checkpoint(saved: str) -> None:
    open_spec, saved_spec = TrainSpec(), TrainSpec.model_validate({"runtime": {"precision": saved}})
    filled = fill_unset_settings_from_saved(open_spec, saved_spec)
    assert filled.runtime.precision == ("fp32" if saved == "fp32" else "auto")


def test_unset_runtime_settings_are_taken_from_the_checkpoint(copy: Path) -> None:
    torch.set_num_threads(2)  # the default of this machine
    observer = resume(copy, describe(copy, runtime={"threads": None}))
    assert observer.all("started")[0].threads == 1
    assert observer.all("resumed")[0].exact


@pytest.mark.parametrize("listed", [False, True])
def test_pickle_in_a_checkpoint_is_never_opened(copy: Path, listed: bool) -> None:
    """Not even to check its digest."""
    hostile = b"cbuiltins\nprint\n(V" + MARKER.encode() + b"\ntR."
    (copy / "step-3" / "rng_state.pth").write_bytes(hostile)
    if listed:
        rewrite(copy / "step-3")
    with looking() as opened, pytest.raises(CheckpointCorrupt):
        resume(copy, describe(copy))
    assert any("manifest.json" in each for each in opened)
    assert not any("rng_state" in each or "find_class" in each for each in opened)


def test_reading_a_checkpoint_opens_only_its_three_files(made: Path) -> None:
    with looking() as opened:
        checkpoint.read_verified(made / "step-3")
    assert not any("find_class" in each for each in opened)
    names = {Path(each.split(" ", 1)[1]).name for each in opened if str(made) in each}
    assert names <= {"manifest.json", "state.json", "tensors.safetensors"}
