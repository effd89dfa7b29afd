"""`loraworks bases check`."""

import json
from pathlib import Path

import pytest

from lora_core.results import BaseModelReport
from tests.app.cli.conftest import Run
from tests.tiny_base import make_base


@pytest.mark.slow  # the report is in tests/lora_core/test_base_model_check.py
def test_check_of_a_general_base(run: Run, tmp_path: Path) -> None:
    result = run("bases", "check", str(make_base(tmp_path / "base", "albert")))
    assert result.exit_code == 0, result.output
    assert "albert, general" in result.stdout
    assert "1 of width 32, run 3 times" in result.stdout
    assert "albert_layers.0.ffn, albert_layers.0.ffn_output" in result.stdout
    assert result.stdout.endswith("This base can be trained and served.\n")


def test_check_as_json(run: Run, tmp_path: Path) -> None:
    result = run("bases", "check", str(make_base(tmp_path / "base", "bert")), "--json")
    found = BaseModelReport.model_validate_json(result.stdout)
    assert (found.road, found.blocks, found.width, found.max_tokens) == ("fast", 2, 32, 64)
    assert found.logits_difference < 1e-5
    assert found.tokens_per_second > 0 < found.trained_tokens_per_second
    # LoRA of rank 8 on four layers of 32 x 32 and two of 32 x 64, in two blocks, and the head.
    adapters = 2 * 8 * (4 * 64 + 2 * 96)
    assert sum(each.parameters for each in found.adapted) == adapters
    assert found.trained_parameters == adapters + 32 * 33 + 33 * 2


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model_type": "gpt2"}, "unsuitable_encoder"),
        pytest.param(
            {"model_type": "hf_new", "auto_map": {"AutoModel": "x.X"}},
            "untrusted_code",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_base_that_cannot_be_used_has_the_error_of_a_job(
    run: Run, tmp_path: Path, changes: dict[str, object], code: str
) -> None:
    base = make_base(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | changes))
    result = run("bases", "check", str(base))
    assert (result.exit_code, code in result.stderr) == (1, True)
    assert result.stdout == ""
