"""Only the training child and the serving pool load torch; everything else starts fast."""

import subprocess
import sys

import pytest

HEAVY = (
    *("torch", "transformers", "datasets", "pyarrow", "sklearn", "pandas"),
    *("scipy", "optuna", "plotly"),
)
LIGHT = [
    "app.main",
    "app.jobs.routes",
    "app.charts.report",
    "app.cli.main",
    "worker.run_job",
    "worker.__main__",
    "lora_core.specs.train",
    "lora_core.fit",
    "lora_core.events",
    "lora_core.manifest",
]


@pytest.mark.parametrize("module", LIGHT)
def test_importing_it_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
