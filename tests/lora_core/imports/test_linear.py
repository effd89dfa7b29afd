"""A linear model from elsewhere is taken in only if it fits and answers as it did."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lora_core.errors import LoraCoreError
from lora_core.errors.artifact import ArtifactUnfit, GoldenMismatch
from lora_core.errors.export import NoEncoder
from lora_core.export import merged, peft
from lora_core.imports import metadata
from lora_core.imports.check import check
from tests.hostile_archives import reseal
from tests.linear_artifact import make_linear_artifact


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return make_linear_artifact(tmp_path / "made", labels=("bad", "fine", "good"))


def test_a_linear_model_of_ours_passes(made: Path) -> None:
    checked = check(made)
    assert checked.difference < 1e-6
    assert (checked.facts.spec.method.type, checked.facts.spec.base) == ("linear", None)
    assert checked.facts.labels == ["bad", "fine", "good"]
    assert checked.facts.metrics["terms"] > 0


def edited(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        said = json.loads((directory / name).read_text())
        changed = change(said)
        (directory / name).write_text(json.dumps(said if changed is None else changed))
        reseal(directory)

    return apply


def sealed(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        change(directory)
        reseal(directory)

    return apply


def moved(directory: Path) -> None:
    """Other weights: it would give other answers."""
    tensors = load_file(directory / "linear.safetensors")
    tensors["intercept"] = tensors["intercept"] + np.array([0.5, 0.0, 0.0])
    save_file(tensors, directory / "linear.safetensors")


def two_models(directory: Path) -> None:
    (directory / "merged").mkdir()
    (directory / "merged" / "config.json").write_text("{}")


WRONG: dict[str, tuple[Callable[[Path], None], type[LoraCoreError], str]] = {
    "other weights": (sealed(moved), GoldenMismatch, "differ by"),
    "an expression": (
        edited("linear.json", lambda s: s["vectorizer"].update(token_pattern="(a|a)*$")),
        ArtifactUnfit,
        "token_pattern",
    ),
    "terms exchanged": (
        edited("linear.json", lambda s: s["terms"].reverse()),
        GoldenMismatch,
        "differ by",
    ),
    "no labels": (lambda d: reseal(d, labels=None), ArtifactUnfit, "no labels"),
    "a label twice": (
        lambda d: reseal(d, labels=["bad", "good", "good"]),
        ArtifactUnfit,
        "one of them twice",
    ),
    "a label less": (lambda d: reseal(d, labels=["bad", "good"]), ArtifactUnfit, "golden.json"),
    "two models": (sealed(two_models), ArtifactUnfit, r"and has merged/config\.json"),
    "no kept answers": (edited("golden.json", lambda _: []), ArtifactUnfit, "golden.json"),
    "a cold temperature": (
        lambda d: reseal(d, calibration={"temperature": 0}),
        ArtifactUnfit,
        "calibration.temperature",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused(name: str, made: Path) -> None:
    spoil, error, problem = WRONG[name]
    spoil(made)
    with pytest.raises(error, match=problem):
        check(made)


def test_an_encoder_still_needs_what_only_a_linear_model_may_lack(made: Path) -> None:
    (made / "linear.json").unlink()
    reseal(made)
    with pytest.raises(ArtifactUnfit, match="no max_length, or no base"):
        metadata.read(made)


@pytest.mark.parametrize(("export", "program"), [(merged.export, "transformers"),
                                                 (peft.export, "PEFT")])  # fmt: skip
def test_it_has_no_form_for_programs_of_encoders(
    export: Callable[[Path, Path], None], program: str, made: Path, tmp_path: Path
) -> None:
    with pytest.raises(NoEncoder, match=f"no form for {program}") as refused:
        export(made, tmp_path / "out")
    assert refused.value.code == "no_encoder"
    assert not (tmp_path / "out").exists()
