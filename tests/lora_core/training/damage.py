"""Ways in which a checkpoint can be damaged."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from lora_core import manifest


def flip(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 1
    path.write_bytes(content)


def rewrite(directory: Path, **facts: Any) -> None:
    """Write a manifest that matches the current files."""
    (directory / "manifest.json").unlink(missing_ok=True)
    manifest.create_and_save(directory, {"kind": "checkpoint", "version": 1, **facts})


def edit_state(directory: Path, change: Callable[[Any], None]) -> None:
    state = json.loads((directory / "state.json").read_text())
    change(state)
    (directory / "state.json").write_text(json.dumps(state))
    rewrite(directory)


def edit_tensors(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    tensors = {
        name: tensor.clone()
        for name, tensor in load_file(directory / "tensors.safetensors").items()
    }
    change(tensors)
    save_file(tensors, directory / "tensors.safetensors")
    rewrite(directory)


def replace_by_link(path: Path) -> None:
    target = path.rename(path.parent.parent / path.name)
    path.symlink_to(target)


def replace_by_words(directory: Path, name: str, words: str = "{ words") -> None:
    (directory / name).write_text(words)
    rewrite(directory)


def first(tensors: dict[str, Any], kind: str) -> str:
    return next(name for name in sorted(tensors) if name.startswith(kind))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "gone": shutil.rmtree,
    "no manifest": lambda d: (d / "manifest.json").unlink(),
    "empty manifest": lambda d: (d / "manifest.json").write_text(""),
    "state cut": lambda d: os.truncate(d / "state.json", 100),
    "state empty": lambda d: os.truncate(d / "state.json", 0),
    "tensors cut": lambda d: os.truncate(d / "tensors.safetensors", 5000),
    "tensors gone": lambda d: (d / "tensors.safetensors").unlink(),
    "a byte of the state": lambda d: flip(d / "state.json", 0.5),
    "a byte of the header": lambda d: flip(d / "tensors.safetensors", 0.01),
    "a byte of a weight": lambda d: flip(d / "tensors.safetensors", 0.7),
    "another file": lambda d: (d / "more.json").write_text("{}"),
    "a link": lambda d: replace_by_link(d / "state.json"),
    "of another kind": lambda d: rewrite(d, kind="model"),
    "no state": lambda d: edit_state(d, lambda state: state.clear()),
    "a figure gone": lambda d: edit_state(d, lambda state: state["figures"].pop("step")),
    "a figure too many": lambda d: edit_state(d, lambda state: state["figures"].update(extra=1)),
    "a rate too many": lambda d: edit_state(d, lambda state: state["figures"]["rates"].append(0.1)),
    "not JSON": lambda d: replace_by_words(d, "state.json"),
    "nested too deeply": lambda d: replace_by_words(d, "state.json", "[" * 100_000),
    "not tensors": lambda d: replace_by_words(d, "tensors.safetensors"),
    "a weight gone": lambda d: edit_tensors(d, lambda t: t.pop(first(t, "weights/"))),
    "a moment gone": lambda d: edit_tensors(d, lambda t: t.pop(first(t, "optimizer/exp_avg/"))),
    "a generator gone": lambda d: edit_tensors(d, lambda t: t.pop("rng/torch")),
    "a tensor too many": lambda d: edit_tensors(d, lambda t: t.update(more=t["rng/torch"].clone())),
    "another shape": lambda d: edit_tensors(
        d, lambda t: t.update({first(t, "weights/"): t["rng/python_gauss"].clone()})
    ),
    "another type": lambda d: edit_tensors(
        d, lambda t: t.update({first(t, "weights/"): t[first(t, "weights/")].double()})
    ),
}  # fmt: skip
