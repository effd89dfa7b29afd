"""SetFit on the same base, with its own defaults, in its own environment.

Its script imports nothing of this project.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.child_process import ROOT
from benchmarks.small.plan import MAX_LENGTH, Spec
from benchmarks.small.sets import Texts
from lora_core.data.rows import TextRow
from lora_core.samples import minilm

PYTHON = ROOT / ".venv-setfit" / "bin" / "python"
SCRIPT = Path(__file__).with_name("setfit_script.py")


def answers(spec: Spec, texts: Texts, train: Sequence[TextRow], seed: int) -> list[str]:  # noqa: ARG001
    """The predicted label of each test text. Exits if the script fails."""
    if not PYTHON.exists():
        sys.exit("SetFit's environment is missing: run `make bench-small`")
    task: dict[str, Any] = {
        "base": str(minilm.build_cached_checkpoint()),
        "max_length": MAX_LENGTH,
        "seed": seed,
        "texts": [row.text for row in train],
        "labels": [row.label for row in train],
        "test": [row.text for row in texts.test],
    }
    with tempfile.TemporaryDirectory(prefix="bench-small-") as folder:
        done = subprocess.run(
            [PYTHON, "-I", SCRIPT], cwd=folder, input=json.dumps(task),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode != 0:
        sys.exit(f"SetFit failed:\n{done.stderr}")
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found
