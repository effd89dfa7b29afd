"""A checkpoint is whole and of this run, or it is refused."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_core.errors.training import CheckpointCorrupt, CheckpointMismatch, StopRequested
from lora_core.specs.train import TrainSpec
from lora_core.training import checkpoint
from lora_core.training.checkpoint_schedule import CheckpointSettings
from lora_core.training.run import run
from tests.listener import Listener
from tests.lora_core.training.damage import DAMAGE, flip, rewrite
from tests.starved import no_descriptors
from tests.tiny_base import make_base, make_reviews

MARKER = "hostile pickle was loaded"
OPENED: list[str] = []  # while somebody looks
LOOKING: list[bool] = []


def note(event: str, arguments: tuple[Any, ...]) -> None:
    if LOOKING and event in {"open", "pickle.find_class"}:
        OPENED.append(f"{event} {arguments[0]}")


sys.addaudithook(note)  # for ever: there is no way to take one back


@contextmanager
def looking() -> Iterator[list[str]]:
    """Every file that is opened inside."""
    OPENED.clear()
    LOOKING.append(True)
    try:
        yield OPENED
    finally:
        LOOKING.clear()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with base, data, and `step-3`, the checkpoint of a run that was stopped."""
    place = tmp_path_factory.mktemp("made")
    make_base(place / "base")
    make_reviews(place / "reviews.csv")
    heard = Listener(stop_at=3)
    with pytest.raises(StopRequested):
        run(describe(place), out_dir=place / "out", observer=heard, stop=heard,
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
    """All of it, to be changed. The same run may go on from another place."""
    return shutil.copytree(made, tmp_path / "copy")


def resume(place: Path, spec: TrainSpec, step: str = "step-3") -> Listener:
    heard = Listener()
    run(spec, out_dir=place / "resumed", observer=heard, stop=heard, resume=place / step)
    return heard


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_refused(damage: str, copy: Path) -> None:
    DAMAGE[damage](copy / "step-3")
    with pytest.raises(CheckpointCorrupt, match="step-3 cannot be used"):
        resume(copy, describe(copy))


def test_one_that_cannot_be_read_is_not_damaged(made: Path) -> None:
    with no_descriptors(), pytest.raises(OSError, match="Too many open files"):
        checkpoint.read(made / "step-3")
    checkpoint.read(made / "step-3")


@pytest.mark.parametrize("at", [i / 40 for i in range(40)])
def test_a_flipped_byte_of_the_manifest_changes_nothing_or_is_noticed(
    at: float, made: Path, tmp_path: Path
) -> None:
    """White space and sizes do not matter; what does is noticed."""
    directory = shutil.copytree(made / "step-3", tmp_path / "step-3")
    before = checkpoint.read(directory)
    flip(directory / "manifest.json", at)
    try:
        after = checkpoint.read(directory)
    except (CheckpointCorrupt, CheckpointMismatch):
        return
    assert after.trainer_state == before.trainer_state
    assert all(
        after.tensors[name].equal(before.tensors[name])
        for name in before.tensors
        if "gauss" not in name
    )


OTHER_RUNS: dict[str, dict[str, Any]] = {
    "method": {"method": {"r": 2}},
    "head_init": {"head_init": "random"},
    "optim": {"optim": {"learning_rate": 0.02}},
    "stop": {"stop": {"patience": 3}},
    "task": {"task": {"class_weights": "balanced"}},
    "data.max_length": {"data": {"max_length": 12}},
    "runtime.seed": {"runtime": {"seed": 1}},
    "the data": {"data": {"split_seed": 1}},
}


@pytest.mark.parametrize("what", OTHER_RUNS)
def test_a_checkpoint_of_another_run_is_refused(what: str, copy: Path) -> None:
    with pytest.raises(CheckpointMismatch, match=f"{what} differs"):
        resume(copy, describe(copy, **OTHER_RUNS[what]))


def test_another_base_of_the_same_name_is_refused(copy: Path) -> None:
    shutil.rmtree(copy / "base")
    make_base(copy / "base", seed=1)
    with pytest.raises(CheckpointMismatch, match="the base model differs"):
        resume(copy, describe(copy))


def test_a_later_format_version_is_refused_with_both_numbers(copy: Path) -> None:
    rewrite(copy / "step-3", version=2)
    with pytest.raises(CheckpointMismatch, match="its format version is 2, this program reads 1"):
        resume(copy, describe(copy))


def test_elsewhere_it_is_the_same_run(copy: Path) -> None:
    told = resume(copy, describe(copy)).all("resumed")[0]
    assert (told.exact, told.differences) == (True, [])


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"runtime": {"threads": 2}}, "threads 1 → 2"),
        ({"optim": {"micro_batch_tokens": 64}}, "micro_batch_tokens 4096 → 64"),
    ],
)
def test_computed_in_another_way_it_goes_on_and_says_so(
    changes: dict[str, Any], difference: str, copy: Path
) -> None:
    told = resume(copy, describe(copy, **changes)).all("resumed")[0]
    assert (told.exact, told.differences) == (False, [difference])


def test_what_the_spec_leaves_open_is_done_as_the_first_time(copy: Path) -> None:
    torch.set_num_threads(2)  # what this machine would take
    heard = resume(copy, describe(copy, runtime={"threads": None}))
    assert heard.all("started")[0].threads == 1
    assert heard.all("resumed")[0].exact


@pytest.mark.parametrize("listed", [False, True])
def test_a_pickle_in_a_checkpoint_is_never_opened(copy: Path, listed: bool) -> None:
    """Not even to see whether its digest is right."""
    hostile = b"cbuiltins\nprint\n(V" + MARKER.encode() + b"\ntR."
    (copy / "step-3" / "rng_state.pth").write_bytes(hostile)
    if listed:
        rewrite(copy / "step-3")
    with looking() as opened, pytest.raises(CheckpointCorrupt):
        resume(copy, describe(copy))
    assert any("manifest.json" in each for each in opened)
    assert not any("rng_state" in each or "find_class" in each for each in opened)


def test_reading_a_good_one_opens_its_three_files_alone_and_no_pickle(made: Path) -> None:
    with looking() as opened:
        checkpoint.read(made / "step-3")
    assert not any("find_class" in each for each in opened)
    names = {Path(each.split(" ", 1)[1]).name for each in opened if str(made) in each}
    assert names <= {"manifest.json", "state.json", "tensors.safetensors"}
