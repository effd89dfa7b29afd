"""Checks of what is not run: blocks that need other machines, JSON, settings, prose."""

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
def test_commands_name_existing_things(
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
def test_json_and_request_bodies_are_valid(block: Block) -> None:
    value = json.loads(block.text)
    if not block.answers and "method" in value:
        JobCreate.model_validate(value)
    if not block.answers and "job" in value:
        SweepCreate.model_validate(value)


@of("yaml")
def test_yaml_is_valid(block: Block) -> None:
    assert YAML(typ="safe", pure=True).load(block.text)


@of("ini")
def test_systemd_unit_starts_an_existing_command(block: Block) -> None:
    unit = ConfigParser(strict=False, interpolation=None)
    unit.read_string(block.text)
    program, *rest = unit["Service"]["ExecStart"].split()
    look_up([Path(program).name, *rest])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_setting_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    assert set(re.findall(rf"{ENV_PREFIX}[A-Z_]*[A-Z]", text)) <= SETTINGS


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_in_prose_exists(document: str) -> None:
    for line in re.findall(r"`loraworks ([^`]+)`", by_hand(document)):
        mention(line.split())
