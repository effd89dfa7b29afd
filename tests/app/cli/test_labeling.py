"""`loraworks labeling` and `loraworks label` against a running service."""

import os
import pty
import select
import subprocess
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.cli.client import Client
from app.cli.errors import ServiceUnreachableOrFailed
from app.cli.label import LABEL_KEYS, STOP, TerminalLabelingLoop, _TerminalKeys
from app.resources import Resources
from tests.app.cli.conftest import Run, answer
from tests.labeling_rows import LabeledRow, add_labels, label_of, make_pool, text_of


@pytest.fixture
def project(cli: Run, resources: Resources, tmp_path: Path) -> str:
    make_pool(resources, tmp_path)
    created = cli("labeling", "create", "mood", "reviews", "--label", "bad", "--label", "good")
    assert created.exit_code == 0, created.output
    assert "loraworks label mood" in created.stdout
    return "mood"


def annotations(url: str, name: str = "mood") -> dict[int, Any]:
    """Labels by row, from the API."""
    listed = httpx2.get(f"{url}/v1/labeling/{name}/annotations?limit=100").json()["data"]
    return {
        each["row"]: each.get("label", each.get("labels", each.get("value"))) for each in listed
    }


def test_a_file_becomes_a_project(cli: Run, tmp_path: Path) -> None:
    table, lines = tmp_path / "table.csv", tmp_path / "lines.txt"
    table.write_text("body\none\ntwo\n")
    lines.write_text("one\ntwo\nthree\n")
    created = answer(
        cli("labeling", "create", "tables", str(table), "--text-column", "body", "--json")
    )
    assert (created["dataset"], created["texts"]) == ("table-to-predict:1", 2)
    created = answer(
        cli("labeling", "create", "stars", str(lines), "--task", "regression", "--json")
    )
    assert (created["texts"], created["task"]["type"]) == (3, "regression")
    names = [each["name"] for each in answer(cli("labeling", "list", "--json"))]
    assert names == ["stars", "tables"]
    assert "regression" in cli("labeling", "list").stdout
    missing = cli("labeling", "create", "x", "none.csv", "--text-column", "body")
    assert (missing.exit_code, "no_file" in missing.output) == (2, True)


def test_list_without_projects(cli: Run) -> None:
    assert "loraworks labeling create" in cli("labeling", "list").stdout


def test_texts_are_labeled_one_by_one(cli: Run, project: str, url: str) -> None:
    [text] = answer(cli("labeling", "next", project, "--json"))["texts"]
    row = str(text["row"])
    assert text_of(text["row"])[:9] in cli("labeling", "next", project, "--count", "2").stdout
    assert "good." in cli("labeling", "label", project, row, "good").stdout
    assert annotations(url) == {text["row"]: "good"}
    assert cli("labeling", "label", project, row, "--undo").exit_code == 0
    assert annotations(url) == {}
    assert "skipped" in cli("labeling", "label", project, row, "--skip").stdout
    refused = cli("labeling", "label", project, row, "great")
    assert (refused.exit_code, "unknown_label" in refused.output) == (3, True)
    for wrong in ((), ("bad", "good")):
        assert "label_count" in cli("labeling", "label", project, row, *wrong).output
    for contradiction in (("bad", "--skip"), ("bad", "--undo"), ("--skip", "--undo")):
        refused = cli("labeling", "label", project, row, *contradiction)
        assert (refused.exit_code, "wrong_options" in refused.output) == (2, True)
    assert "bad, good, great" in cli("labeling", "add-labels", project, "great").stdout
    assert cli("labeling", "label", project, row, "great").exit_code == 0


def test_labels_of_other_tasks(cli: Run, resources: Resources, tmp_path: Path, url: str) -> None:
    make_pool(resources, tmp_path)
    for name, task, labels in (
        ("topics", "multi_label", ["--label", "a", "--label", "b"]),
        ("stars", "regression", []),
    ):
        cli("labeling", "create", name, "reviews", "--task", task, *labels)
    assert "a, b." in cli("labeling", "label", "topics", "1", "b", "a").stdout
    assert "none." in cli("labeling", "label", "topics", "2").stdout
    assert cli("labeling", "label", "stars", "1", "--annotator", "ann", "2.5").exit_code == 0
    assert "not_a_number" in cli("labeling", "label", "stars", "1", "many").output
    assert annotations(url, "topics") == {1: ["a", "b"], 2: []}
    assert "Row 3: 123456.5." in cli("labeling", "label", "stars", "3", "123456.5").stdout
    assert annotations(url, "stars") == {1: 2.5, 3: 123456.5}


def test_show_and_export(cli: Run, project: str, resources: Resources) -> None:
    assert "20 labeled texts" in cli("labeling", "show", project).stdout
    add_labels(resources, [LabeledRow(row, label_of(row)) for row in range(1, 21)])
    shown = cli("labeling", "show", project).stdout
    assert "queued" in shown
    assert "not known yet: it is measured when there are suggestions" in shown
    assert [line.split() for line in shown.splitlines() if line.startswith(("bad", "local"))] == [
        ["bad", "10"], ["local", "20", "0"],
    ]  # fmt: skip
    assert answer(cli("labeling", "show", project, "--json"))["labeled"] == 20
    exported = cli("labeling", "export", project)
    assert "mood:1 has 20 labeled texts." in exported.stdout
    assert "loraworks train --data mood:1" in exported.stdout
    named = answer(cli("labeling", "export", project, "--name", "final", "--json"))
    assert named["ref"] == "final:1"
    assert cli("labeling", "delete", project).exit_code == 0
    gone = cli("labeling", "show", project)
    assert (gone.exit_code, "labeling_project_not_found" in gone.output) == (3, True)


# -- Key by key -----------------------------------------------------------------------------------


class TypedKeys:
    """Keys and lines that somebody types."""

    def __init__(self, *typed: str) -> None:
        self.typed = [*typed, "q"]

    def read_key(self) -> str:
        return self.typed.pop(0)

    def read_line(self, prompt: str) -> str:
        assert prompt
        return self.typed.pop(0)


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as opened:
        yield opened


@pytest.fixture
def type_keys(client: Client) -> Callable[..., TerminalLabelingLoop]:
    def run(*typed: str, name: str = "mood", count: int | None = None) -> TerminalLabelingLoop:
        labeling = TerminalLabelingLoop(
            client, TypedKeys(*typed), project=name, sleep=lambda _: None
        )
        labeling.run(count)
        return labeling

    return run


TypeKeys = Callable[..., TerminalLabelingLoop]


def test_one_key_labels(
    type_keys: TypeKeys, project: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert type_keys("1", "x", "2", "s").done == 3
    assert sorted(map(str, annotations(url).values())) == ["None", "bad", "good"]
    shown = capsys.readouterr().out
    assert "[1] bad  [2] good  [s] skip  [z] undo" in shown
    assert "chosen as random" in shown


def test_undo_returns_to_the_last_text(type_keys: TypeKeys, project: str, url: str) -> None:
    assert type_keys("z", "1", "2", "z", "1").done == 2
    assert list(annotations(url).values()) == ["bad", "bad"]


def test_a_label_is_added_and_found_by_its_name(
    type_keys: TypeKeys, project: str, url: str
) -> None:
    type_keys("?", "mixed", "?", "", "3", "?", "good")
    assert sorted(annotations(url).values()) == ["good", "mixed", "mixed"]


def test_keys_toggle_several_labels(
    type_keys: TypeKeys, cli: Run, project: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli("labeling", "create", "topics", "reviews", "--task", "multi_label",
        "--label", "a", "--label", "b", "--label", "c")  # fmt: skip
    type_keys("1", "2", "3", "2", "\n", "\r", name="topics")
    assert sorted(annotations(url, "topics").values()) == [[], ["a", "c"]]
    assert "[1] *a  [2] b  [3] *c  [Enter] done" in capsys.readouterr().out


def test_numbers_are_typed(type_keys: TypeKeys, cli: Run, project: str, url: str) -> None:
    cli("labeling", "create", "stars", "reviews", "--task", "regression")
    assert type_keys("2.5", "many", "4", "z", "-1", "s", name="stars").done == 3
    assert sorted(map(str, annotations(url, "stars").values())) == ["-1.0", "2.5", "None"]


def test_what_is_no_finite_number_is_asked_again(
    type_keys: TypeKeys, cli: Run, project: str, url: str
) -> None:
    cli("labeling", "create", "stars", "reviews", "--task", "regression")
    assert type_keys("nan", "-inf", "3", name="stars").done == 1
    assert list(annotations(url, "stars").values()) == [3.0]


def test_it_stops_after_a_number_of_labels_and_when_nothing_is_left(
    type_keys: TypeKeys, project: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert type_keys(*["1"] * 12, count=11).done == 11
    assert "11 of 60" not in capsys.readouterr().out  # it tells after ten
    assert type_keys(*["1"] * 60).done == 49
    assert "Nothing is left to label" in capsys.readouterr().out


def test_a_label_is_sent_again_while_the_service_is_away(
    client: Client, project: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([True, True])
    put, undo = client.update_annotation, client.delete_annotation

    def unreliable_put(*arguments: Any) -> Any:
        if next(failures, False):
            raise ServiceUnreachableOrFailed("lost the connection", "unreachable")
        return put(*arguments)

    def answer_lost(*arguments: Any) -> None:
        undo(*arguments)
        if next(failures, True):
            monkeypatch.setattr(client, "delete_annotation", undo)
            raise ServiceUnreachableOrFailed("lost the connection", "unreachable")

    monkeypatch.setattr(client, "update_annotation", unreliable_put)
    monkeypatch.setattr(client, "delete_annotation", answer_lost)
    waits: list[float] = []
    labeling = TerminalLabelingLoop(client, TypedKeys("1", "z"), project="mood", sleep=waits.append)
    labeling.run()
    assert annotations(url) == {}
    assert len(waits) == 3


def test_every_label_key_is_distinct() -> None:
    assert len(set(LABEL_KEYS)) == len(LABEL_KEYS) == 32
    assert not set(LABEL_KEYS) & set("szq?")


def test_without_a_terminal_it_says_so(cli: Run, project: str) -> None:
    refused = cli("label", project)
    assert (refused.exit_code, "no_terminal" in refused.output) == (2, True)


def test_a_line_that_came_with_a_key_is_read() -> None:
    main, end = pty.openpty()
    before = termios.tcgetattr(end)
    tty.setcbreak(end)
    keys = _TerminalKeys(end, before)
    os.write(main, "?größer\n2?mi".encode())
    assert keys.read_key() == "?"
    os.write(main, b"xed\n")
    assert keys.read_line("label: ") == "größer"
    assert [keys.read_key(), keys.read_key()] == ["2", "?"]
    assert keys.read_line("label: ") == "mixed"
    os.write(main, b"?mi")
    assert keys.read_key() == "?"
    threading.Timer(0.3, os.write, (main, b"\x04")).start()  # Ctrl-D, once lines are read
    assert keys.read_line("label: ") == STOP[-1]
    os.close(main)
    os.close(end)


class PseudoTerminal:
    """`loraworks label` in a terminal of its own."""

    def __init__(self, url: str, *arguments: str) -> None:
        self._main, end = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app.cli.main", "label", *arguments],
            stdin=end, stdout=end, stderr=end, start_new_session=True,
            env={**os.environ, "LORAWORKS_URL": url, "COLUMNS": "200", "TERM": "dumb"},
        )  # fmt: skip
        os.close(end)
        self.shown = ""

    def wait_for(self, text: str) -> None:
        """Read until a text is shown; forget what was shown before."""
        deadline = time.monotonic() + 30
        while text not in self.shown:
            readable, _, _ = select.select([self._main], [], [], deadline - time.monotonic())
            assert readable, self.shown
            try:
                self.shown += os.read(self._main, 4096).decode("utf-8", "replace")
            except OSError:  # the program has ended
                assert text in self.shown, self.shown
        self.shown = self.shown.partition(text)[2]

    def press(self, keys: str) -> None:
        os.write(self._main, keys.encode())

    def close(self) -> int:
        self.process.kill()
        os.close(self._main)
        return self.process.wait(30)


@pytest.fixture
def terminal(project: str, url: str) -> Iterator[PseudoTerminal]:
    opened = PseudoTerminal(url, project, "--annotator", "ünal")
    yield opened
    opened.close()


@pytest.mark.slow
def test_keys_of_a_terminal(terminal: PseudoTerminal, url: str) -> None:
    terminal.wait_for("[q] quit")
    terminal.press("1")
    terminal.wait_for("[q] quit")
    terminal.press("\x1b[A?")  # an arrow does nothing
    terminal.wait_for("label: ")
    terminal.press("größer\n")
    terminal.wait_for("[3] größer")
    terminal.press("z3q")
    terminal.wait_for("You labeled or skipped 2 texts.")
    assert terminal.process.wait(30) == 0
    assert sorted(annotations(url).values()) == ["bad", "größer"]
