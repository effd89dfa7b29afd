"""What is not run is true as well: blocks that need other machines, JSON, settings, sentences."""

import json
import re
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from app.jobs.schemas import JobCreate
from app.settings import ENV_PREFIX
from app.sweeps.schemas import SweepCreate
from tests.docs.blocks import DOCUMENTS, ROOT, Block, blocks, by_hand
from tests.docs.commands import SETTINGS, commands, look_up, mention

ALL = [block for document in DOCUMENTS for block in blocks(document)]
MARKED = [block for block in ALL if block.needs]


def of(language: str, found: list[Block] = ALL) -> pytest.MarkDecorator:
    chosen = [block for block in found if block.language == language]
    return pytest.mark.parametrize("block", chosen, ids=str)


@of("sh", MARKED)
def test_what_a_command_names_is_there(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["/usr/bin/env", "bash", "-n"], input=block.text, text=True, check=True)
    monkeypatch.chdir(tmp_path)
    for words in commands(block.text):
        for word in words:
            if re.fullmatch(r"[\w-]+\.(csv|jsonl|tar)", word):
                Path(word).touch()
        look_up(words)


@of("json")
def test_json_is_valid_and_a_body_is_one(block: Block) -> None:
    value = json.loads(block.text)
    if not block.answers and "method" in value:
        JobCreate.model_validate(value)
    if not block.answers and "job" in value:
        SweepCreate.model_validate(value)


@of("yaml")
def test_yaml_is_valid(block: Block) -> None:
    assert YAML(typ="safe", pure=True).load(block.text)


@of("ini")
def test_a_unit_starts_what_there_is(block: Block) -> None:
    unit = ConfigParser(strict=False, interpolation=None)
    unit.read_string(block.text)
    program, *rest = unit["Service"]["ExecStart"].split()
    look_up([Path(program).name, *rest])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_setting_is_one(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    assert set(re.findall(rf"{ENV_PREFIX}[A-Z_]*[A-Z]", text)) <= SETTINGS


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_in_a_sentence_is_one(document: str) -> None:
    for line in re.findall(r"`loraworks ([^`]+)`", by_hand(document)):
        mention(line.split())


@pytest.mark.parametrize("line", ["jbos list", "jobs lizt", "train --rank 8"])
def test_a_wrong_mention_is_noticed(line: str) -> None:
    with pytest.raises(AssertionError):
        mention(line.split())


def test_a_command_after_a_hash_within_a_word_is_seen() -> None:
    assert list(commands("a=${b##*/}; ls # all\n")) == [["a=${b##*/}"], ["ls"]]


@pytest.mark.parametrize(
    "line",
    [
        "loraworks trane",
        "loraworks train --rank 8",
        "loraworks keys create",
        "LORAWORKS_HOTS=0.0.0.0 loraworks api",
        "curl -s http://127.0.0.1:8000/v1/jbos",
        "docker compose up webserver",
        "docker compose up --scale workers=3",
        "docker compose run --rm api keys destroy admin",
        "docker compose --profile cpu up",
        "make tset",
        "python -m lora_cor train",
        "rm -rf /",
    ],
)
def test_what_is_not_there_is_noticed(line: str) -> None:
    (words,) = commands(line)
    with pytest.raises(AssertionError):
        look_up(words)
