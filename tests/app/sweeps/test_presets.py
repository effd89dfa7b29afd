"""Predefined sweeps."""

from typing import get_args

from app.sweeps import search_space, trials
from app.sweeps.schemas import SweepCreate
from app.sweeps.search_space import PRESETS, SEED_GRID, PresetName
from lora_core.specs.method import LoraSpec


def test_every_preset_is_a_valid_sweep() -> None:
    assert set(PRESETS) == set(get_args(PresetName))
    for body in PRESETS.values():
        SweepCreate.model_validate(body)


def test_the_seed_grid_has_576_trials() -> None:
    grid = list(
        search_space.iterate_grid_settings(SweepCreate.model_validate(SEED_GRID).search_space)
    )
    assert len({search_space.canonical_json(settings) for settings in grid}) == len(grid) == 576
    assert grid[0] == {
        "method.alpha": 1,
        "method.r": 1,
        "method.targets": ["query", "value"],
        "method.head": "frozen",
    }
    assert grid[1] == {**grid[0], "method.head": "lora"}
    assert grid[-1] == {
        "method.alpha": 64,
        "method.r": 32,
        "method.targets": ["query", "key", "value", "projection", "mlp"],
        "method.head": "lora",
    }
    # All combinations of key, projection and mlp; query and value are always on.
    assert len({tuple(settings["method.targets"]) for settings in grid}) == 8
    assert all({"query", "value"} <= set(settings["method.targets"]) for settings in grid)


def test_its_trials_have_the_settings_of_the_lessons() -> None:
    body = SweepCreate.model_validate(SEED_GRID)
    *_, last = search_space.iterate_grid_settings(body.search_space)
    [spec] = trials.build_trial_specs_or_errors(body.job, [last])
    assert not isinstance(spec, Exception)
    assert isinstance(spec.method, LoraSpec)
    assert (spec.method.variant, spec.method.r, spec.method.alpha) == ("unscaled", 32, 64.0)
    assert (spec.optim.learning_rate, spec.optim.epochs, spec.optim.batch_size) == (5e-5, 3, 12)
    assert (spec.result.train_metrics, spec.result.model) == (True, False)
