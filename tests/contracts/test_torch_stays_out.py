"""Only the training child and the serving pool load torch; everything else starts fast."""

import json
import subprocess
import sys

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
# One process for all: what none of them loads together, none loads alone.
PROGRAM = """
import importlib, json, sys
light, heavy = map(json.loads, sys.argv[1:])
loaded = {}
for name in light:
    importlib.import_module(name)
    loaded[name] = [each for each in heavy if each in sys.modules]
print(json.dumps(loaded))
"""


def test_importing_it_loads_nothing_heavy() -> None:
    command = [sys.executable, "-c", PROGRAM, json.dumps(LIGHT), json.dumps(HEAVY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {name: [] for name in LIGHT}
