"""What stays out of a process: torch of all but the training child and the serving pool, the web of
workers, and the database of clients.
"""

import json
import subprocess
import sys

import pytest

HEAVY = (
    *("torch", "transformers", "datasets", "pyarrow", "sklearn", "pandas"),
    *("scipy", "optuna", "plotly"),
)
WEB = ("fastapi", "app.main", "app.serving")
LIGHT = {
    "worker.job_runner": (*HEAVY, *WEB),
    "worker.__main__": (*HEAVY, *WEB),
    "app.main": HEAVY,
    "app.jobs.routes": HEAVY,
    "app.charts.sweep_report": HEAVY,
    "app.cli.main": HEAVY,
    "lora_core.specs.train": HEAVY,
    "lora_core.compatibility": HEAVY,
    "lora_core.events": HEAVY,
    "lora_core.manifest": HEAVY,
    "lora_core.data.file_inspection": HEAVY,
}
SCHEMAS = [f"app.{domain}.schemas" for domain in ("datasets", "jobs", "registry", "sweeps")]
SERVER = (*HEAVY, "numpy", "sqlalchemy", "fastapi", "starlette", "pydantic_settings", "structlog")
CLIENT = {
    "app.cli.main": (*SERVER, "httpx2", *SCHEMAS),  # `loraworks --help`
    "app.cli.client": SERVER,
}
# One process imports all of them: what they do not load together, none loads alone.
PROGRAM = """
import importlib, json, sys
loaded = {}
for name, unwanted in json.loads(sys.argv[1]).items():
    importlib.import_module(name)
    loaded[name] = [each for each in unwanted if each in sys.modules]
print(json.dumps(loaded))
"""


@pytest.mark.parametrize("modules", [LIGHT, CLIENT], ids=["service", "client"])
def test_import_loads_nothing_heavy(modules: dict[str, tuple[str, ...]]) -> None:
    command = [sys.executable, "-c", PROGRAM, json.dumps(modules)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {name: [] for name in modules}
