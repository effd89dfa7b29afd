"""Write the valid examples of the corpus, from which fuzzing begins: `python -m tests.fuzz.seeds`.

Examples that fuzzing found are kept beside them.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlencode
from zipfile import ZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import xlsxwriter
from peft import LoraConfig, TaskType
from safetensors.torch import save_file
from transformers import AutoConfig

from app.queue.dispatch import TASK_NAME
from lora_core import manifest
from lora_core.manifest import MANIFEST_FILE
from lora_core.specs.method import LoraSpec
from lora_core.specs.train import TrainSpec
from tests import mistral_files
from tests.fuzz.http_requests import operations
from tests.fuzz.http_responses import TOKEN
from tests.fuzz.model_files import ADAPTER_FILES, CHECKPOINT, exported_adapter, tiny_model
from tests.fuzz.readers import CORPUS, HERE
from tests.linear_artifact import make_linear_artifact
from tests.lora_artifact import make_lora_artifact
from tests.tiny_base import EVERY_FAMILY, tokenizer

Examples = dict[str, bytes]

ROWS = [{"text": f"film {i} is {label}", "label": label} for i, label in enumerate("xyxyx")]
TABLE = (
    "text,text_pair,label,a,b,split\n"
    '"one, ""two""",second,5,0,1,train\n'
    "three\u00e9,fourth,4;5,1,0,test\n"
    "five,sixth,5,1,1,validation\n"
)
EMPTY_WEIGHTS = b"\x02" + bytes(7) + b"{}"  # of a safetensors file without tensors


def csv() -> Examples:
    return {
        "table.csv": TABLE.encode(),
        "utf-16.csv": TABLE.encode("utf-16"),
        "western.csv": TABLE.replace(",", ";").encode("cp1252"),
        "sep-line.csv": b"sep=;\r\ntext;label\r\na;1\r\nb;2,5\r\n",
        "tabs.csv": b"text\tlabel\na\tx\n\nb\ty\n",
    }


def xlsx() -> Examples:
    written = io.BytesIO()
    with xlsxwriter.Workbook(written) as workbook:
        sheet = workbook.add_worksheet("Reviews")
        for row, line in enumerate(["text", "one", "two"]):
            sheet.write_string(row, 0, line)
        sheet.write_row(0, 1, ["label", "a", "b"])
        sheet.write_row(1, 1, ["x", 1, True])
        sheet.write_row(2, 1, ["y", 0.5, False])
        sheet.write_formula(3, 0, '="a"', value="three")
        sheet.write_datetime(
            3,
            1,
            np.datetime64("2026-03-31").astype(object),
            workbook.add_format({"num_format": "yyyy-mm-dd"}),
        )
        workbook.add_worksheet("Empty").hide()
    with ZipFile(written) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    return {"reviews.xlsx": written.getvalue()} | {
        Path(part).name: part.encode() + b"\n" + content for part, content in parts.items()
    }


def jsonl() -> Examples:
    chat = [{"role": "system", "content": "Label it."}, {"role": "user", "content": "Text: a"}]
    answer = {"role": "assistant", "content": '{"label": "x"}'}
    lines: dict[str, list[dict[str, Any]]] = {
        "rows.jsonl": ROWS,
        "sets.jsonl": [{"text": "a", "label": ["x", "y"]}, {"text": "b", "label": []}],
        "pairs.jsonl": [{"text": "a", "text_pair": "b", "label": 1.5, "split": "train"}],
        "targets.jsonl": [{"text": "a", "a": "x", "b": 2}, {"text": "b", "a": None, "b": 3}],
        "chat.jsonl": [{"messages": [*chat, answer]}, {"messages": [*chat, answer]}],
        "parts.jsonl": [
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, answer]}
        ],
        "prompts.jsonl": [{"prompt": f"{each} ->", "completion": f" {each}"} for each in "ab"],
        "preferred.jsonl": [{"input": {"messages": chat}, "preferred_output": [answer]}],
    }  # fmt: skip
    return {name: _json_lines(each) for name, each in lines.items()} | {
        "mistral.jsonl": mistral_files.examples(4)
    }


def _json_lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def label_studio() -> Examples:
    files = (HERE.parent / "assets" / "label_studio").glob("*-min.json")
    task = {
        "id": 1,
        "data": {"text": "a film"},
        "annotations": [
            {
                "id": 7, "ground_truth": True, "was_cancelled": False,
                "updated_at": "2026-01-01T00:00:00Z",
                "result": [
                    {"from_name": "label", "type": "choices", "value": {"choices": ["good"]}},
                    {"from_name": "span", "type": "labels", "value": {"start": 0, "labels": ["x"]}},
                ],
            }
        ],
    }  # fmt: skip
    tasks = json.dumps([task, {**task, "id": 2, "annotations": []}]).encode()
    return {"tasks.json": tasks} | {file.name: file.read_bytes() for file in files}


def parquet() -> Examples:
    columns = {"text": ["one", "two"], "text_pair": ["a", "b"], "label": ["x", "y"]}
    tables = {
        "strings.parquet": pa.table(columns),
        "lists.parquet": pa.table({"text": ["one"], "label": [["x", "y"]]}),
        "numbers.parquet": pa.table(
            {"text": pa.array(["one"]).dictionary_encode(), "label": [1.5]}
        ),
        "bools.parquet": pa.table({"text": ["one"], "a": [True], "b": pa.array([1], pa.int8())}),
    }
    return {name: _parquet(table, name != "strings.parquet") for name, table in tables.items()}


def _parquet(table: pa.Table, compressed: bool) -> bytes:
    written = io.BytesIO()
    pq.write_table(table, written, compression="zstd" if compressed else "none", store_schema=False)
    return written.getvalue()


def archive() -> Examples:
    long_name = tarfile.TarInfo("model/" + "a" * 90 + ".json")
    long_name.pax_headers = {"comment": "a comment"}
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(long_name)
    return {
        "linear.tar": _tar_of(_linear_model()),
        "encoder.tar": _tar_of(_encoder()),
        "pax.tar": written.getvalue(),
    }


def model() -> Examples:
    return {
        f"{kind}-{name.replace('/', '-')}": f"{kind}/{name}\n".encode() + content
        for kind, files in (("linear", _linear_model()), ("encoder", _encoder()))
        for name, content in files.items()
        if name != "base/tokenizer.json"  # has a reader of its own
    }


def _linear_model() -> Examples:
    with TemporaryDirectory() as directory:
        made = make_linear_artifact(Path(directory) / "model", min_df=30)
        return _files_in(made)


def _encoder() -> Examples:
    """Return the files of an encoder whose weights are left out."""
    with TemporaryDirectory() as directory:
        made = make_lora_artifact(Path(directory), LoraSpec())
        for file in made.rglob("*.safetensors"):
            file.write_bytes(EMPTY_WEIGHTS)
        facts = {k: v for k, v in manifest.read(made).items() if k != "files"}
        (made / MANIFEST_FILE).unlink()
        manifest.create_and_save(made, facts)
        return _files_in(made)


def _files_in(directory: Path) -> Examples:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def _tar_of(files: Examples) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"model/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return written.getvalue()


def safetensors() -> Examples:
    with TemporaryDirectory() as directory:
        file = Path(directory) / "x.safetensors"
        tensors = {"a": torch.zeros(2, 3), "b": torch.zeros(1, dtype=torch.bfloat16)}
        save_file(tensors, file, {"format": "pt"})
        return {"two.safetensors": file.read_bytes(), "empty.safetensors": EMPTY_WEIGHTS}


def tokenizers() -> Examples:
    names = ("distilbert", "xlm-roberta")
    made = {f"{name}.json": json.loads(tokenizer(name).to_str()) for name in names}
    byte_level = json.loads(tokenizer("modernbert").to_str())
    byte_level["model"]["vocab"] = {"[PAD]": 0, "a": 1, "b": 2, "ab": 3, "[CLS]": 4, "[SEP]": 5}
    byte_level["model"]["merges"] = [["a", "b"]]
    made["byte-level.json"] = byte_level
    return {name: json.dumps(each).encode() for name, each in made.items()}


def adapter_config() -> Examples:
    common = {"task_type": TaskType.SEQ_CLS, "base_model_name_or_path": "minilm-l6"}
    configs = {
        "names.json": LoraConfig(r=8, target_modules=["q_lin", "v_lin"], **common),
        "pattern.json": LoraConfig(
            target_modules=r".*\.(q_lin|dense)", use_dora=True, rank_pattern={"q_lin": 4},
            alpha_pattern={r"layer\.0\..*": 2}, layers_to_transform=None, **common,
        ),
        "layers.json": LoraConfig(
            target_modules=["dense"], layers_to_transform=[11], layers_pattern="layer",
            modules_to_save=["classifier"], use_rslora=True, **common,
        ),
    }  # fmt: skip
    usage = {"task": {"type": "multi_label"}, "text_pairs": True, "thresholds": {"x": 0.4}}
    return {name: _json(config.to_dict()) for name, config in configs.items()} | {
        "loraworks.json": _json(usage)
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, default=lambda each: sorted(each)).encode()


def base_config() -> Examples:
    made = {}
    for family in EVERY_FAMILY:
        config = EVERY_FAMILY[family]().config
        assert isinstance(config, type(AutoConfig.for_model(config.model_type)))
        made[f"{family}.json"] = json.dumps(config.to_dict()).encode()
    pooling = b'{"pooling_mode_mean_tokens": true, "word_embedding_dimension": 32}'
    made["pooled.json"] = made["bert.json"] + b"\n\n" + pooling
    return made


def imported_model() -> Examples:
    return {
        f"{kind}-{name.replace('/', '-')}": f"{kind}/{name}\n".encode() + content
        for kind, files in (("linear", _linear_model()), ("tiny", _files_in(tiny_model())))
        for name, content in files.items()
    }


def adapter() -> Examples:
    files = {
        **_files_in(exported_adapter()),
        "config.json": b'{"id2label": {"0": "bad", "1": "good"}}',
        "id2label.json": b'{"0": "bad", "1": "good"}',
        "tokenizer_config.json": b'{"model_max_length": 16}',
    }
    return {
        name.replace("/", "-"): f"{name}\n".encode() + files[name]
        for name in ADAPTER_FILES
        if name in files
    }


def checkpoint() -> Examples:
    small = {"tensors.safetensors": EMPTY_WEIGHTS}
    return {
        name: name.encode() + b"\n" + small.get(name, content)
        for name, content in _files_in(CHECKPOINT).items()
    }


SPEC: dict[str, Any] = TrainSpec.model_validate({"preset": "seed"}).model_dump(mode="json")
CHAT = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
INPUTS = ["a film", {"text": "a", "text_pair": "b"}, ["a", "b"]]
OPTIONS = {"model": "spam@production", "n": 2, "stop": ["x"], "stream": True, "logprobs": True}
BODIES: dict[str, Any] = {
    "create_job": {**SPEC, "name": "n", "tags": ["a"]},
    "create_sweep": {
        "job": {"method": {"type": "lora"}},
        "space": {"method.r": [4, 8], "optim.learning_rate": [1e-5, 1e-3]},
        "strategy": {"type": "random", "trials": 4},
    },
    "create_feedback": {"feedback": [{"prediction_id": "0" * 32, "label": "good"}]},
    "create_webhook": {"url": "https://1.1.1.1/hook", "events": ["job.succeeded"]},
    "correct_labels": {"changes": [{"row": 1, "label": "1", "given": "0"}]},
    "create_labeling_project": {"name": "mood", "dataset": "texts", "labels": ["good", "bad"]},
    "update_annotation": {"label": "good"},
    "forget_text": {"text": "a film"},
    "explain_prediction": {"inputs": {"text": "a", "text_pair": "b"}, "label": "good"},
    "predict": {
        "inputs": INPUTS, "model": "spam:1", "truncate": False, "truncation_direction": "Left",
        "parameters": {"function_to_apply": "sigmoid", "top_k": 1}, "abstain_below": 0.5,
    },
    "rerank": {"query": "a", "texts": ["b", "c"], "return_text": True, "raw_scores": True},
    "predict_vertex": {"instances": [{"inputs": "a"}, {"inputs": ["a", "b"]}]},
    "create_chat_completion": {"messages": CHAT, **OPTIONS, "top_logprobs": 2, "tools": []},
    "create_completion": {**OPTIONS, "prompt": ["a", "b"], "logprobs": 1, "best_of": 2},
    "create_moderation": {"input": CHAT[0]["content"], "model": "spam"},
    "create_fine_tuning_job": {
        "model": "minilm-l6", "training_file": "file-" + "0" * 32, "suffix": "spam", "seed": 1,
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}},
    },
    "create_mistral_job": {
        "model": "minilm-l6", "training_files": [{"file_id": "0" * 32, "weight": 1}],
        "hyperparameters": {"epochs": 2, "learning_rate": 1e-4}, "job_type": "classifier",
        "classifier_targets": [{"name": "topic", "labels": ["a", "b"]}], "auto_start": True,
    },
    "create_mistral_classification": {"model": "spam", "input": ["a", "b"]},
    "create_mistral_chat_classification": {"model": "spam", "input": [{"messages": CHAT}]},
}  # fmt: skip


def _bodies(*prefixes: str) -> Examples:
    return {
        f"{name}.txt": f"{name}\n{json.dumps(BODIES.get(name, {}))}".encode()
        for name, operation in operations().items()
        if str(operation.path).startswith(prefixes)
    }


def upload() -> Examples:
    part = b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    form = part % (b"name", b"", b"mail") + part % (b"file", b'; filename="a.csv"', b"text,label")
    return {"form.txt": b"multipart/form-data; boundary=b\n" + form + b"--b--\r\n"}


def request() -> Examples:
    key = "lw_" + "0" * 32 + "_" + "a" * 43
    session = "loraworks_session=lws_" + "0" * 32 + "_" + "a" * 43
    requests = {
        "predict": (
            f"POST /predict?format=hf&target=a\nAuthorization: Bearer {key}\nX-Request-Id: a-1\n"
            "X-Request-Timeout: 1.5\nContent-Length: 20\nContent-Type: application/json\n\n"
        ),
        "sign-in": (
            "POST /sign-in\nOrigin: https://127.0.0.1\nSec-Fetch-Site: same-origin\n"
            f"Content-Type: application/x-www-form-urlencoded\n\nkey={key}&next=%2Fjobs"
        ),
        "sign-in-page": "GET /sign-in?next=%2Fjobs%3Fa%3D1\nHost: localhost:8000\n\n",
        "sign-out": f"POST /sign-out\nCookie: {session}\nX-Page-Token: abc\n\n",
        "session": (
            f"POST /nothing\nAuthorization: Basic YTpi\nCookie: {session}\nX-Page-Token: a\n\n"
        ),
        "static": (
            'GET /static/api.js\nAccept-Encoding: gzip\nIf-None-Match: W/"a"\nRange: bytes=0-9\n\n'
        ),
        "cross-site": (
            "GET /nothing\nSec-Fetch-Site: cross-site\nSec-Fetch-Mode: navigate\n"
            "Sec-Fetch-Dest: document\nTransfer-Encoding: chunked\n\n"
        ),
    }  # fmt: skip
    return {f"{name}.txt": text.encode() for name, text in requests.items()}


def form() -> Examples:
    sweep = {
        "job.data.source": "rotten-tomatoes", "job.method.type": "lora", "job.preset": "seed",
        "job.task.targets": "a,b", "space.method.r": "2,4", "space.method.alpha": "log:1..64x3",
        "space.method.targets": "query+value,all", "strategy.type": "random",
        "strategy.trials": "4", "more": "method.head=train,lora\noptim.weight_decay=0.0..0.1",
    }  # fmt: skip
    columns = {"label_column": "x", "text_pair_column": "b", "split_column": "s", "sheet": "1"}
    targets = "stars=regression,topic,flags=multi_label:c,rank=ordered"
    forms = {
        "dataset": {"name": "Mail", "task": "multi_label", "label_columns": "a, b", **columns},
        "dataset-targets": {"targets": targets, "purpose": "predict", "ordered": "false"},
        "dataset-json": {"targets": '{"a": {"type": "regression", "column": "b"}, "c": {}}'},
        "openai": {"purpose": "fine-tune", "expires_after[anchor]": "created_at"},
        "mistral": {"purpose": "fine-tune", "visibility": "workspace", "expiry": "1"},
        "sweep": sweep,
        "sweep-tpe": {**sweep, "strategy.type": "tpe", "objective": "accuracy"},
        "sweep-halving": {**sweep, "strategy.type": "halving", "strategy.eta": "2"},
        "extension": {"space.method.r": "16", "space.optim.learning_rate": "1e-4", "trials": "9"},
    }
    return {
        f"{name}.txt": f"{name.partition('-')[0]}\n{urlencode(fields)}".encode()
        for name, fields in forms.items()
    }


def mlflow() -> Examples:
    info = {"experiment_id": "1", "run_id": "a" * 32}
    found = {
        "experiment_id": "1", "experiment": {"experiment_id": "1", "lifecycle_stage": "active"},
        "run": {"info": info}, "runs": [{"info": info}],
        "model_version": {"version": "3"}, "model_versions": [{"version": 3}],
    }  # fmt: skip
    message = f"no experiment for {TOKEN}"
    rejected = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": message}
    return {
        "found.txt": b"200\n" + _json(found),
        "rejected.txt": b"404\n" + _json(rejected),
        "deleted.txt": b"200\n" + _json({"experiment": {"lifecycle_stage": "deleted"}}),
        "host.txt": b"403\nInvalid Host header",
        "unauthorized.txt": b"401\n",
        "unavailable.txt": b"503\n<html>",
    }


def message() -> Examples:
    ids = {"id": "0" * 32, "task": TASK_NAME, "root_id": "0" * 32, "group": None}
    details = {"exchange": "", "routing_key": "loraworks.cpu"}
    sent = {
        "body": "W1tdLCB7fSwge31d",
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {**ids, "eta": None, "expires": None, "timelimit": [None, None], "retries": 0},
        "properties": {
            "correlation_id": "0" * 32, "reply_to": "a", "delivery_mode": 2, "priority": 6,
            "delivery_info": details, "body_encoding": "base64", "delivery_tag": "1",
        },
    }  # fmt: skip
    typed = {**sent, "body": {"__type__": "datetime", "__value__": "2026-01-01T00:00:00"}}
    return {"sent.json": _json(sent), "typed.json": _json(typed), "bare.json": b'{"headers": {}}'}


def events() -> Examples:
    values = {"value": 0.8, "accuracy": 0.8, "low": 0.7, "high": 0.9}
    lora = TrainSpec.model_validate({"method": {"type": "lora"}}).method.model_dump(mode="json")
    tested = {"accuracy": 0.7, "loss": 0.6}
    result = {"method": lora, "folds": 5, "repeats": 1, "texts": 100, **values}
    sent: dict[str, list[dict[str, Any]]] = {
        "training": [
            {"event": "tick", "phase": "loading", "step": 0},
            {"event": "resumed", "step": 2, "exact": False, "differences": ["threads 2 \u2192 1"]},
            {
                "event": "started", "total_steps": 8, "trainable_parameters": 10, "threads": 1,
                "total_parameters": 20, "examples": {"train": 3}, "labels": ["a"], "device": "cpu",
                "precision": "float32", "learning_rate": 0.1,
            },
            {
                "event": "step", "step": 3, "epoch": 0.5, "loss": None, "learning_rate": 0.1,
                "grad_norm": 1.5, "reviews_per_second": 9.5, "tokens_per_second": 99.5,
                "peak_memory_mb": 50.0,
            },
            {"event": "checkpoint", "step": 4, "directory": "step-4"},
            {"event": "evaluated", "step": 4, "split": "test", "metrics": tested, "best": True},
            {"event": "finished", "summary": {}},
        ],
        "search": [
            {"event": "candidate", "number": 1, "of": 2, "result": result},
            {"event": "selected", "number": 1, "method": lora, "texts": 100},
            {
                "event": "linear_model", "validation": {}, "test": tested, "train_texts": 3,
                "seconds": 0.1, "cached": True,
            },
        ],
        "failed": [
            {"event": "noted", "level": "warning", "code": "cut", "message": "a\0b"},
            {"event": "failed", "code": "crashed", "message": "no", "detail": {"at": ["a", 1.5]}},
        ],
        "waiting": [{"event": "failed", "code": "disk_full", "message": "a", "detail": {}}],
    }  # fmt: skip
    return {f"{name}.jsonl": _json_lines(lines) for name, lines in sent.items()}


def cookie() -> Examples:
    token = b"lws_" + b"0" * 32 + b"_" + b"a" * 43
    return {"session.txt": token, "cookies.txt": b"other=1; __Host-loraworks_session=" + token}


def parameters() -> Examples:
    texts = {
        "key": "lw_" + "0" * 32 + "_" + "a" * 43, "hub-token": "hf_abc", "cursor": "A" * 22,
        "version": "spam:3", "alias": "spam@production", "fine-tuned": "ft:minilm-l6::" + "0" * 32,
        "file": "file-" + "0" * 32, "result": "file-result-" + "0" * 32, "job": "ftjob-" + "0" * 32,
        "idempotency-key": '"a\\"b"', "url": "https://[2606:4700::1111]:8443/hook?a=b",
        "private-url": "http://10.0.0.1/hook",
    }  # fmt: skip
    return {f"{name}.txt": text.encode() for name, text in texts.items()}


SEEDS: dict[str, Callable[[], Examples]] = {
    **{each.__name__: each for each in (
        csv, xlsx, jsonl, label_studio, parquet, archive, model, safetensors, adapter_config,
        base_config, checkpoint, imported_model, adapter, upload, request, form, cookie, parameters,
        mlflow, message, events,
    )},
    "tokenizer": tokenizers,
    "bodies": lambda: _bodies("/v1/"),
    "predict_bodies": lambda: _bodies("/predict", "/rerank", "/vertex", "/models/"),
    "openai_bodies": lambda: _bodies("/openai/"),
    "mistral_bodies": lambda: _bodies("/mistral/"),
}  # fmt: skip


def write() -> Iterator[Path]:
    """Write all examples; yield their files."""
    for reader, examples in SEEDS.items():
        directory = CORPUS / reader
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in examples().items():
            (directory / name).write_bytes(content)
            yield directory / name


if __name__ == "__main__":
    size = sum(file.stat().st_size for file in write())
    print(f"{size:,} bytes")  # noqa: T201 - a command
