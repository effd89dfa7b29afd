"""Only the training child and the serving pool load torch, and no worker loads the web: everything
else starts fast.
"""

import json
import subprocess
import sys

HEAVY = (
    *("torch", "transformers", "datasets", "pyarrow", "sklearn", "pandas"),
    *("scipy", "optuna", "plotly"),
)
WEB = ("fastapi", "app.main", "app.serving")
LIGHT = {
    "worker.run_job": (*HEAVY, *WEB),
    "worker.__main__": (*HEAVY, *WEB),
    "app.main": HEAVY,
    "app.jobs.routes": HEAVY,
    "app.charts.report": HEAVY,
    "app.cli.main": HEAVY,
    "lora_core.specs.train": HEAVY,
    "lora_core.compatibility": HEAVY,
    "lora_core.events": HEAVY,
    "lora_core.manifest": HEAVY,
    "lora_core.data.contents": HEAVY,
}
# One process for all, one after the other: what they do not load together, none loads alone.
PROGRAM = """
import importlib, json, sys
loaded = {}
for name, unwanted in json.loads(sys.argv[1]).items():
    importlib.import_module(name)
    loaded[name] = [each for each in unwanted if each in sys.modules]
print(json.dumps(loaded))
"""


def test_importing_it_loads_nothing_heavy() -> None:
    command = [sys.executable, "-c", PROGRAM, json.dumps(LIGHT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {name: [] for name in LIGHT}
