"""The hub is a local fake; its clients are separate processes (see `tests.hub_stand_in`)."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.hub_stand_in import TOKEN, HubStandIn

READ = """
import json, sys
from lora_core.data.rows import ColumnSelection
from lora_core.data.load import read_source
from lora_core.errors import LoraCoreError
for name in sys.argv[1:]:
    try:
        splits = read_source(f"hub:{name}", ColumnSelection())
        cells = {p: [[r.number, r.text, r.label] for r in rows] for p, rows in splits.items()}
        print(json.dumps(cells))
    except LoraCoreError as error:
        print(json.dumps({"code": error.code, "message": str(error)}))
"""
READ_SETS = READ.replace(
    "ColumnSelection()", "ColumnSelection(label_format=LabelFormat('multi_label'))"
).replace("import json", "from lora_core.data.label_readers import LabelFormat\nimport json")
CLASSES = {"names": ["neg", "pos"], "_type": "ClassLabel"}
FEATURES = {"text": {"dtype": "string", "_type": "Value"}, "label": CLASSES}


def parquet(path: Path, texts: list[str], labels: list[int]) -> None:
    facts = json.dumps({"info": {"features": FEATURES}})
    table = pa.table({"text": texts, "label": pa.array(labels, pa.int64())})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"huggingface": facts}), path)


def csv(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["text,label", *rows]) + "\n")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Valid and invalid repositories, and a local folder with the same names."""
    root = tmp_path_factory.mktemp("hub")
    repositories = root / "datasets"
    folder = repositories / "org/reviews/plain"
    parquet(folder / "train-00000-of-00001.parquet", ["a", "b", "c"], [0, 1, 1])
    parquet(folder / "test-00000-of-00001.parquet", ["d"], [0])
    parquet(folder / "unsupervised-00000-of-00001.parquet", ["e"], [-1])
    files = "".join(
        f"  - split: {split}\n    path: plain/{split}-*\n"
        for split in ("train", "test", "unsupervised")
    )
    (folder.parent / "README.md").write_text(
        f"---\nconfigs:\n- config_name: plain\n  data_files:\n{files}---\n"
    )
    (repositories / "reviews").symlink_to("org/reviews")
    csv(repositories / "org/one-file/data.csv", "a,7", "b,8")
    csv(repositories / "org/no-train/test.csv", "a,7", "b,8")
    parquet(repositories / "org/secret/train.parquet", ["a", "b"], [0, -1])
    csv(repositories / "org/scripted/data.csv", "a,7", "b,8")
    (repositories / "org/scripted/scripted.py").write_text("open('ran', 'w')")
    (repositories / "org/poems").mkdir()
    (repositories / "org/poems/train.txt").write_text("text,label\na,1\n")
    csv(repositories / "csv/data.csv", "a,7", "b,8")
    csv(root / "here/org/reviews/train.csv", "decoy,1")
    csv(root / "here/elsewhere.csv", "private,1", "other,0")
    csv(repositories / "org/gated-reviews/train.csv", "a,7", "b,8")
    for config in ("films", "more.books"):
        csv(repositories / "org/several" / config / "train.csv", f"{config} a,7", f"{config} b,8")
    (repositories / "org/several/README.md").write_text(
        "---\nconfigs:\n- config_name: films\n  data_files: films/*\n"
        "- config_name: more.books\n  data_files: more.books/*\n---\n"
    )
    topics = {"text": FEATURES["text"], "label": {"feature": CLASSES, "_type": "List"}}
    facts = json.dumps({"info": {"features": topics}})
    table = pa.table({"text": ["a", "b", "c"], "label": pa.array([[1, 0], [], [1]])})
    (repositories / "org/topics").mkdir()
    pq.write_table(
        table.replace_schema_metadata({"huggingface": facts}),
        repositories / "org/topics/train.parquet",
    )
    pq.write_table(
        table.set_column(1, "label", pa.array([[1], None, [0]])).replace_schema_metadata(
            {"huggingface": facts}
        ),
        repositories / "org/topics/test.parquet",
    )
    (repositories / "org/elsewhere").mkdir()
    (repositories / "org/elsewhere/README.md").write_text(
        "---\nconfigs:\n- config_name: x\n  data_files:\n  - split: train\n"
        f"    path: {root}/here/elsewhere.csv\n---\n"
    )
    return root


def ask(
    root: Path, environment: Mapping[str, str], *names: str, script: str = READ
) -> list[dict[str, Any]]:
    """What a new process reads for each name."""
    answer = subprocess.run(
        [sys.executable, "-c", script, *names],
        env={**os.environ, **environment},
        cwd=root / "here",
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert answer.returncode == 0, answer.stderr
    return [json.loads(line) for line in answer.stdout.splitlines()]


REVIEWS = {"train": [[1, "a", "neg"], [2, "b", "pos"], [3, "c", "pos"]], "test": [[1, "d", "neg"]]}


def test_hub_splits_and_class_names_are_used_and_cached(root: Path, tmp_path: Path) -> None:
    names = ["org/reviews", "org/one-file"]
    expected = [REVIEWS, {"train": [[1, "a", "7"], [2, "b", "8"]]}]
    with HubStandIn(root) as hub:
        environment = hub.environment(tmp_path)
        assert ask(root, environment, *names, "reviews") == [*expected, REVIEWS]
        assert any("plain/train-00000-of-00001.parquet" in line for line in hub.requests)
    assert ask(root, {**environment, "HF_HUB_OFFLINE": "1"}, *names) == expected


@pytest.mark.slow  # each test starts a process
def test_lists_of_classes_are_read_by_their_names(root: Path, tmp_path: Path) -> None:
    with HubStandIn(root) as hub:
        environment = hub.environment(tmp_path)
        [answer] = ask(root, environment, "org/topics", script=READ_SETS)
        assert (answer["code"], "[test]" in answer["message"]) == ("missing_label", True)
        (root / "datasets/org/topics/test.parquet").unlink()
        [answer] = ask(root, hub.environment(tmp_path / "2"), "org/topics", script=READ_SETS)
    assert answer == {"train": [[1, "a", '["neg", "pos"]'], [2, "b", "[]"], [3, "c", '["pos"]']]}


def test_unsupported_hub_data_is_refused(root: Path, tmp_path: Path) -> None:
    expected = {
        "org/none": ("data_not_found", "the hub has no such dataset"),
        "org/no-train": ("missing_split", "no train split"),
        "org/secret": ("missing_label", "[train]: rows without a label: 1 (first: 2"),
        "org/scripted": ("data_not_found", "cannot read it"),
        "org/poems": ("unsupported_format", "its format is 'text'"),
        "org/elsewhere": ("data_not_found", "cannot read it"),
        "csv": ("data_not_found", "it has no owner"),
        "text": ("data_not_found", "the hub has no such dataset"),
        "buckets/org": ("data_not_found", "it has no owner"),
        "../here": ("data_not_found", "not the name of a hub dataset"),
        "org/reviews/plain": ("data_not_found", "not the name of a hub dataset"),
        "http://127.0.0.1:9/x": ("data_not_found", "not the name of a hub dataset"),
        "org/gated-reviews": ("gated_dataset", "no token is set"),
        "org/several": (
            "hub_config_required",
            "such as 'hub:org/several:films': films, more.books",
        ),
        "org/several:songs": ("unknown_hub_config", "Available: films, more.books"),
        "org/several:": ("data_not_found", "not the name of a hub dataset"),
        "org/one-file:songs": ("unknown_hub_config", "Available: default"),
    }
    with HubStandIn(root) as hub:
        answers = ask(root, hub.environment(tmp_path), *expected)
    for (name, (code, words)), answer in zip(expected.items(), answers, strict=True):
        assert answer.get("code") == code, (name, answer)
        assert words in answer["message"]
    assert not (root / "here" / "ran").exists()


@pytest.mark.slow  # each test starts a process
def test_a_configuration_is_read_by_its_name(root: Path, tmp_path: Path) -> None:
    names = ["org/several:films", "org/several:more.books", "org/one-file:default"]
    with HubStandIn(root) as hub:
        answers = ask(root, hub.environment(tmp_path), *names)
    assert [answer["train"][0][1] for answer in answers] == ["films a", "more.books a", "a"]


@pytest.mark.slow  # each test starts a process
def test_gated_dataset_needs_a_token_with_access(root: Path, tmp_path: Path) -> None:
    with HubStandIn(root) as hub:
        environment = hub.environment(tmp_path)
        (refused,) = ask(root, environment | {"HF_TOKEN": "hf_other"}, "org/gated-reviews")
        (answer,) = ask(root, environment | {"HF_TOKEN": TOKEN}, "org/gated-reviews")
    assert refused["code"] == "gated_dataset"
    assert "has no access" in refused["message"]
    assert f"{hub.url}/datasets/org/gated-reviews" in refused["message"]
    assert answer == {"train": [[1, "a", "7"], [2, "b", "8"]]}
    cached = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert cached
    assert not [path for path in cached if TOKEN.encode() in path.read_bytes()]


def test_offline_hub_is_reported(root: Path, tmp_path: Path) -> None:
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    for answer in ask(root, environment, "org/reviews", "reviews"):
        assert answer["code"] == "data_not_found"
        assert "not in the local cache" in answer["message"]


@pytest.mark.slow  # the client retries for half a minute
def test_hub_outage_is_a_transient_error(root: Path, tmp_path: Path) -> None:
    with HubStandIn(root) as hub:
        environment = hub.environment(tmp_path)
        (broken,) = ask(root, environment, "org/broken")
    (gone,) = ask(root, environment, "org/reviews")
    assert (broken["code"], gone["code"]) == ("hub_unavailable", "hub_unavailable")
    assert "returned status 503" in broken["message"]
    assert "cannot be reached" in gone["message"]
