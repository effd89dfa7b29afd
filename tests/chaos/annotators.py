"""Annotators who label texts over HTTP while faults are injected.

Like the page, each sends a label until the service has acknowledged it, and only then the next one.
"""

import random
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx2
from sqlalchemy import select

from app.database.engines import Database
from app.labeling.tables import LabelingAnnotation, LabelingChosenText, LabelingProject
from tests.waiting import wait_until

TEXTS = 3_000
LABELS = ("bad", "good")
NAMES = ("ada", "grace")
NAME = "chaos"
PATH = f"/v1/labeling/{NAME}"
LONGEST_PAUSE = 1.0  # seconds between two keys
TIMEOUT = 20  # seconds, as of the page
LAST_LABEL_SECONDS = 60  # until it is acknowledged, once nothing is broken any more


@dataclass(frozen=True)
class LabelCounts:
    """What became of the labels."""

    labels: int  # acknowledged, and neither undone nor replaced
    lost: int
    doubled: int


class Annotators:
    """Threads that label, change their minds, and undo."""

    def __init__(self, url: str, base: str, draw: random.Random) -> None:
        self._url = url
        self._base = base
        self._draw = draw
        self._threads: list[_Annotator] = []
        self._acknowledged = threading.Event()  # one more label

    def upload(self) -> None:
        """Upload the texts."""
        lines = "text\n" + "".join(f"a {LABELS[i % 2]} film {i}\n" for i in range(TEXTS))
        form = {"name": NAME, "purpose": "predict"}
        answer = httpx2.post(
            f"{self._url}/v1/datasets", files={"file": ("texts.csv", lines)}, data=form, timeout=60
        )
        assert answer.status_code == 201, answer.text

    def start(self) -> None:
        """Begin to label. The first one creates the project."""
        self._threads = [
            _Annotator(self._url, self._base, name, self._draw.random(), self._acknowledged)
            for name in NAMES
        ]
        for each in self._threads:
            each.start()

    def stop(self) -> None:
        """Stop now; a label that is not acknowledged is given up."""
        for each in self._threads:
            each.given_up.set()
        for each in self._threads:
            each.join(2 * TIMEOUT)

    def wait_for_label(self, *, seconds: float) -> bool:
        """Wait until a label is acknowledged; return whether one was."""
        self._acknowledged.clear()
        return self._acknowledged.wait(seconds)

    def finish(self) -> None:
        """Wait until the last labels are acknowledged."""
        for each in self._threads:
            each.finishing.set()
        wait_until(
            lambda: not any(each.is_alive() for each in self._threads),
            seconds=LAST_LABEL_SECONDS, what="the last labels",
        )  # fmt: skip

    def project_job(self, database: Database) -> UUID | None:
        """Return the job that computes the vectors."""
        with database.read() as session:
            return session.scalar(
                select(LabelingProject.job_id).where(LabelingProject.name == NAME)
            )

    def judge(self, database: Database) -> LabelCounts:
        """Compare what is stored with what was acknowledged."""
        expected = {
            (name, row): label
            for each in self._threads
            for (name, row), label in each.acknowledged.items()
        }
        table = LabelingAnnotation
        with database.read() as session:
            stored = session.execute(select(table.annotator, table.row, table.value)).all()
            choices = session.execute(
                select(LabelingChosenText.row, LabelingChosenText.missing)
            ).all()
        found = {(name.rpartition("/")[2], row): value for name, row, value in stored}
        wrong = {key for key in expected.keys() | found if expected.get(key) != found.get(key)}
        times = Counter(row for _, row, _ in stored)
        doubled = {row for row, count in times.items() if count > 1}  # no text is given twice
        doubled |= {row for row, missing in choices if missing != 1 - times[row]}
        for key in sorted(wrong):
            sys.stderr.write(f"label of {key}: {expected.get(key)} became {found.get(key)}\n")
        for row in sorted(doubled):
            sys.stderr.write(f"row {row} has {times[row]} labels\n")
        failed = [each for each in self._threads if each.problem]
        for each in failed:
            sys.stderr.write(f"{each.name} stopped: {each.problem}\n")
        return LabelCounts(len(expected), len(wrong) + len(failed), len(doubled))


class _Annotator(threading.Thread):
    def __init__(
        self, url: str, base: str, name: str, seed: float, acknowledged: threading.Event
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.acknowledged: dict[tuple[str, int], str] = {}
        self.finishing, self.given_up = threading.Event(), threading.Event()
        self.problem = ""
        self._url, self._base = url, base
        self._draw = random.Random(seed)
        self._one_more = acknowledged

    def run(self) -> None:
        try:
            while not self.finishing.is_set():
                self._press_key()
                self._one_more.set()
                self.finishing.wait(self._draw.uniform(0, LONGEST_PAUSE))
        except _GivenUp:
            pass
        except Exception as error:
            self.problem = repr(error)

    def _press_key(self) -> None:
        key = self._draw.random()
        if self.acknowledged and key < 0.2:
            row = self._draw.choice([row for _, row in self.acknowledged])
            return self._undo(row) if key < 0.1 else self._label(row)
        answer = self._send("POST", f"{PATH}/next", {"count": 1, "annotator": self.name})
        if answer.status_code == 404:
            return self._create()
        assert answer.status_code == 200, answer.text
        for text in answer.json()["texts"]:
            self._label(text["row"])
        return None

    def _label(self, row: int) -> None:
        label = self._draw.choice(LABELS)
        answer = self._send("PUT", f"{PATH}/texts/{row}", {"label": label, "annotator": self.name})
        assert answer.status_code == 200, answer.text
        self.acknowledged[self.name, row] = label

    def _undo(self, row: int) -> None:
        answer = self._send("DELETE", f"{PATH}/texts/{row}?annotator={self.name}")
        is_gone = answer.status_code == 404 and answer.json()["code"] == "annotation_not_found"
        assert answer.status_code == 204 or is_gone, answer.text
        del self.acknowledged[self.name, row]

    def _create(self) -> None:
        body = {"name": NAME, "dataset": NAME, "labels": LABELS, "base": self._base}
        answer = self._send("POST", "/v1/labeling", body)
        assert answer.status_code in (201, 409), answer.text  # the other one was faster

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx2.Response:
        """Send a request until the service has answered it."""
        while not self.given_up.is_set():
            try:
                answer = httpx2.request(method, f"{self._url}{path}", json=body, timeout=TIMEOUT)
            except httpx2.HTTPError:
                pass
            else:
                if answer.status_code < 500 and answer.status_code != 429:
                    return answer
            time.sleep(0.1)
        raise _GivenUp


class _GivenUp(Exception):
    pass
