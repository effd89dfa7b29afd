"""A training process that runs a script of actions, without training.

    python scripted_child.py ACTION... train SPEC --out DIR --exit-with-parent --checkpoints DIR …

Like the real one it stops with 75 on SIGTERM and leaves when its standard input ends.
"""

import base64
import hashlib
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

SUMMARY = {"labels": ["negative", "positive"], "test": {"accuracy": 0.75}}


def write_manifest(directory: Path, facts: dict[str, Any]) -> None:
    """Like `lora_core.manifest.create_and_save`, whose imports take longer than the rest."""
    files = {
        path.relative_to(directory).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
    written = json.dumps({**facts, "files": files}, indent=1, allow_nan=False, ensure_ascii=False)
    (directory / "manifest.json").write_text(written, encoding="utf-8")


def report(event: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def started(total: str) -> None:
    report(
        "started",
        total_steps=int(total),
        trainable_parameters=10,
        total_parameters=1000,
        examples={"train": 8, "validation": 2, "test": 2},
        labels=["negative", "positive"],
        device="cpu",
        precision="fp32",
        threads=int(os.environ["OMP_NUM_THREADS"]),
        learning_rate=0.001,
    )


def steps(count: str) -> None:
    """Report steps, starting after the one it resumes from."""
    for number in range(begun() + 1, int(count) + 1):
        report(
            "step",
            step=number,
            epoch=number / 10,
            loss=1 / number,
            learning_rate=0.001,
            grad_norm=None,
            reviews_per_second=10.0,
            tokens_per_second=100.0,
            peak_memory_mb=50.0,
        )


def begun() -> int:
    return int(json.loads((resume / "manifest.json").read_text())["step"]) if resume else 0


def checkpoint(step: str) -> None:
    directory = checkpoints / f"step-{step}"
    directory.mkdir(parents=True)
    (directory / "state").write_text(step)
    write_manifest(directory, {"step": int(step)})
    report("checkpoint", step=int(step), directory=directory.name)


def linked_checkpoint(directory: str) -> None:
    """Report a checkpoint that is a link, or below one, to a directory elsewhere."""
    target = Path(directory)
    shutil.rmtree(checkpoints, ignore_errors=True)
    checkpoints.symlink_to(target.parent)
    report("checkpoint", step=1, directory=target.name)


def linked_output(directory: str) -> None:
    """Finish with an output that is a link to a directory elsewhere."""
    out.symlink_to(directory)
    report("finished", summary=SUMMARY)


def resumed(exact: str) -> None:
    """Report that it resumes from a checkpoint."""
    if resume is not None:
        different = {} if exact == "exactly" else {"differences": ["threads 2 → 1"]}
        report("resumed", step=begun(), exact=exact == "exactly", **different)


def picky(_: str) -> None:
    """Reject any checkpoint."""
    if resume is not None:
        message = "The checkpoint does not belong to this run: the data differs."
        detail = {"path": "step", "what": "the data differs"}
        report("failed", code="checkpoint_mismatch", message=message, detail=detail)
        sys.exit(65)


def evaluated(split: str) -> None:
    report("evaluated", step=1, split=split, metrics={"loss": 0.5, "accuracy": 0.75}, best=True)


def long(length: str) -> None:
    report("noted", code="long", message="x" * int(length))


def failed(code: str) -> None:
    """Report a failure that names the file, as data errors do."""
    source = json.loads(Path(spec).read_text())["data"]["source"]
    report("failed", code=code, message=f"{source} has one label.", detail={"file": source})


def succeed(_: str) -> None:
    (out / "merged").mkdir(parents=True)
    (out / "merged" / "config.json").write_text("{}")
    write_manifest(out, {"spec": json.loads(Path(spec).read_text()), "metrics": SUMMARY})
    report("finished", summary=SUMMARY)


def adapter(base: str) -> None:
    """Write the output of a LoRA training on a base with this content."""
    (out / "base").mkdir(parents=True)
    (out / "base" / "model.safetensors").write_text(base)
    (out / "classifier.json").write_text("{}")
    write_manifest(out, {"spec": json.loads(Path(spec).read_text()), "metrics": SUMMARY})
    report("finished", summary=SUMMARY)


def trial(_: str) -> None:
    """Write the output of a trial: metrics computed from its settings, and no model."""
    described = json.loads(Path(spec).read_text())
    accuracy = 0.5 + zlib.crc32(json.dumps(described["method"]).encode()) / 2**34
    parts = ["validation"] if described["trial"] else ["train", "validation", "test"]
    metrics = {part: {"accuracy": accuracy, "loss": 1 - accuracy} for part in parts}
    right = [i < round(8 * accuracy) for i in range(8)]
    bits = sum(bit << (7 - i) for i, bit in enumerate(right))
    correct = base64.b64encode(bytes([bits])).decode()
    of_split = {"texts_sha256": "0" * 64, "count": 8, "correct": correct}
    correctness = dict.fromkeys(parts[-2:], of_split)
    out.mkdir(parents=True)
    write_manifest(out, {"spec": described, "metrics": metrics, "correctness": correctness})
    report("finished", summary=metrics)


def damage(_: str) -> None:
    (out / "merged" / "config.json").write_text("{ }")


def hang(_: str) -> None:
    while True:
        time.sleep(60)


def until(file: str) -> None:
    while not Path(file).exists():
        time.sleep(0.05)
        report("tick", phase="training", step=0)


def ignore_term(_: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def deaf(_: str) -> None:
    """Ignore the exit of the parent."""
    global exit_with_parent
    exit_with_parent = False


def helper(file: str) -> None:
    """Start a child that keeps the pipe open."""
    Path(file).write_text(str(subprocess.Popen(["/bin/sleep", "300"]).pid))


def stranger(file: str) -> None:
    """The same in its own session, so that signals to the group do not reach it."""
    process = subprocess.Popen(["/bin/sleep", "300"], start_new_session=True)
    Path(file).write_text(str(process.pid))


def environment(file: str) -> None:
    Path(file).write_text(json.dumps(dict(os.environ)))


def copy_spec(file: str) -> None:
    shutil.copyfile(spec, file)


def first(file: str) -> None:
    """Hang the first time; later continue with the next action."""
    if not Path(file).exists():
        Path(file).write_text(str(os.getpid()))
        hang("")


def note_pid(file: str) -> None:
    """Append the pid."""
    with Path(file).open("a") as pids:
        pids.write(f"{os.getpid()}\n")


def fail_once(file: str) -> None:
    if not Path(file).exists():
        Path(file).touch()
        failed("non_finite")
        sys.exit(65)


def run(file: str) -> None:
    """Run another script in this process."""
    runpy.run_path(file)


def die(number: str) -> None:
    os.kill(os.getpid(), int(number))


ACTIONS = {
    "started": started,
    "checkpoint": checkpoint,
    "linked_checkpoint": linked_checkpoint,
    "linked_output": linked_output,
    "resumed": resumed,
    "picky": picky,
    "steps": steps,
    "evaluated": evaluated,
    "long": long,
    "failed": failed,
    "succeed": succeed,
    "adapter": adapter,
    "trial": trial,
    "damage": damage,
    "hang": hang,
    "sleep": lambda seconds: time.sleep(float(seconds)),
    "until": until,
    "ignore-term": ignore_term,
    "deaf": deaf,
    "helper": helper,
    "stranger": stranger,
    "environment": environment,
    "copy-spec": copy_spec,
    "first": first,
    "note-pid": note_pid,
    "fail-once": fail_once,
    "signal": die,
    "run": run,
    "exit": lambda code: sys.exit(int(code)),
    "say": lambda text: (sys.stdout.write(text + "\n"), sys.stdout.flush()),
    "complain": lambda text: sys.stderr.write(text + "\n"),
}


def follow_parent() -> None:
    while os.read(0, 4096):
        pass
    if exit_with_parent:
        os._exit(75)


exit_with_parent = True
command = next(i for i, each in enumerate(sys.argv) if each in ("train", "predict-file"))
actions, (_, spec, *options) = sys.argv[1:command], sys.argv[command:]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
threading.Thread(target=follow_parent, daemon=True).start()
out = Path(options[options.index("--out") + 1])
checkpoints = Path(options[options.index("--checkpoints") + 1])
resume = Path(options[options.index("--resume") + 1]) if "--resume" in options else None
for action in actions:
    name, _, value = action.partition(":")
    ACTIONS[name](value)  # type: ignore[no-untyped-call]
