"""What a sweep calls by name means the same to its end, whatever names it uses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from app.settings import Settings
from tests.app.conftest import settings as default_settings
from tests.app.jobs.conftest import upload
from tests.app.sweeps.conftest import Look, Start
from tests.app.sweeps.stand_in import StandIn
from tests.tiny_base import make_base

__all__ = ["default_settings", "upload"]

LORA = {"type": "lora", "targets": ["query"]}
SPACE = {"method.r": [2, 4, 8], "method.alpha": [8, 16]}
HALVING = {"type": "halving", "eta": 2, "first_share": 0.25, "keep": 1}
Upload = Callable[..., UUID]


@pytest.fixture
def settings(default_settings: Settings, tmp_path: Path) -> Settings:
    """With a folder of bases."""
    make_base(tmp_path / "bases" / "tiny")
    return default_settings.model_copy(update={"base_dirs": (tmp_path / "bases",)})


def finished(start: Start, look: Look, worker: StandIn, **fields: Any) -> dict[str, Any]:
    sweep = start(space=SPACE, strategy=HALVING, **fields)
    worker.work()
    after = look(sweep)
    assert after["state"] == "finished", after
    return after


def test_a_base_of_another_name_than_it_is_kept_by(
    start: Start, look: Look, worker: StandIn
) -> None:
    """A directory below the operator's folder is kept by its full path."""
    finished(start, look, worker, job={"method": LORA, "base": "./tiny"})
    assert {each.spec["base"].startswith("/") for each in worker.ran} == {True}
    assert len(worker.ran) == 6 + 3 + 2


def test_columns_of_an_upload_that_have_other_names(
    start: Start, look: Look, worker: StandIn, upload: Upload
) -> None:
    upload("mails")
    finished(start, look, worker, job={"method": LORA, "data": {"source": "mails"}})
    columns = {(e.spec["data"]["text_column"], e.spec["data"]["source"]) for e in worker.ran}
    assert columns == {("body", "mails:1")}


def test_a_source_for_each_part(start: Start, look: Look, worker: StandIn, upload: Upload) -> None:
    upload("mails")
    upload("later")
    parts = {"train": "mails", "test": "later"}
    finished(start, look, worker, job={"method": LORA, "data": {"source": parts}})
    sources = {str(each.spec["data"]["source"]) for each in worker.ran}
    assert sources == {str({"test": "later:1", "train": "mails:1"})} or len(sources) == 1


def test_a_data_set_that_is_uploaded_anew_changes_no_cell(
    start: Start, worker: StandIn, upload: Upload
) -> None:
    upload("mails")
    start(space=SPACE, strategy=HALVING, job={"method": LORA, "data": {"source": "mails"}})
    worker.work(6)
    upload("mails", version=2)
    worker.work()
    assert {each.spec["data"]["source"] for each in worker.ran} == {"mails:1"}


def test_a_data_set_that_is_gone_fails_the_cells_that_are_left(
    start: Start, look: Look, worker: StandIn, upload: Upload, client: TestClient
) -> None:
    upload("mails")
    sweep = start(space=SPACE, job={"method": LORA, "data": {"source": "mails"}})
    held = worker.take()
    assert held is not None
    client.post(f"/v1/sweeps/{sweep['id']}/pause")
    worker.end(held)
    assert client.delete("/v1/datasets/mails:1").status_code == 204
    client.post(f"/v1/sweeps/{sweep['id']}/resume")
    after = look(sweep)
    assert (after["state"], after["counts"]["failed"]) == ("finished", 5)
