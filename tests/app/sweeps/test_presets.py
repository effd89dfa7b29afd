"""The sweeps that have a name."""

from typing import get_args

from app.sweeps import search_space, trials
from app.sweeps.presets import PRESETS, SEED_GRID, PresetName
from app.sweeps.schemas import SweepCreate
from lora_core.specs.method import LoraSpec


def test_every_preset_is_a_sweep_that_could_be_sent() -> None:
    assert set(PRESETS) == set(get_args(PresetName))
    for body in PRESETS.values():
        SweepCreate.model_validate(body)


def test_the_grid_of_the_seed_has_its_576_cells() -> None:
    made = list(search_space.grid(SweepCreate.model_validate(SEED_GRID).over))
    assert len({search_space.named(cell) for cell in made}) == len(made) == 576
    assert made[0] == {
        "method.alpha": 1,
        "method.r": 1,
        "method.targets": ["query", "value"],
        "method.head": "frozen",
    }
    assert made[1] == {**made[0], "method.head": "lora"}
    assert made[-1] == {
        "method.alpha": 64,
        "method.r": 32,
        "method.targets": ["query", "key", "value", "projection", "mlp"],
        "method.head": "lora",
    }
    # Key, projection and mlp are off and on in every way; query and value are always on.
    assert len({tuple(cell["method.targets"]) for cell in made}) == 8
    assert all({"query", "value"} <= set(cell["method.targets"]) for cell in made)


def test_a_cell_of_it_has_the_settings_of_the_lessons() -> None:
    body = SweepCreate.model_validate(SEED_GRID)
    *_, last = search_space.grid(body.over)
    [spec] = trials.specs(body.job, [last])
    assert not isinstance(spec, Exception)
    assert isinstance(spec.method, LoraSpec)
    assert (spec.method.variant, spec.method.r, spec.method.alpha) == ("unscaled", 32, 64.0)
    assert (spec.optim.learning_rate, spec.optim.epochs, spec.optim.batch_size) == (5e-5, 3, 12)
    assert (spec.result.train_figures, spec.result.model) == (True, False)
