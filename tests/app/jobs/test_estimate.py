"""Estimates: the model behind them, and how finished jobs correct them."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from app.database.engines import Database
from app.jobs import estimate
from app.jobs.data_sources import ALL_ROWS, ResolvedData
from app.jobs.resolve import SPEED_SAMPLE_JOBS
from app.queue.enums import DeviceClass
from app.queue.transitions import Succeeded
from app.storage import repository as artifacts
from app.storage.store import ArtifactRef
from lora_core import model_selection
from lora_core.compatibility import read_encoder_shape
from lora_core.data.split import Example
from lora_core.samples import minilm
from lora_core.specs.data import DataSpec, LongTexts, Split
from lora_core.specs.method import AutoSpec, FullFineTuningSpec, LoraSpec
from lora_core.specs.train import HeadInit, OptimSpec, RuntimeSpec, TrainSpec
from lora_core.training import auto
from tests.app.jobs.conftest import Upload
from tests.app.jobs.fake_worker import FakeWorker

Submit = Callable[..., dict[str, Any]]
SHAPE = read_encoder_shape(minilm.build_distilbert_config_dict(), base=minilm.NAME)


def data(rows: dict[str, int], **sizes: Any) -> ResolvedData:
    return ResolvedData(
        DataSpec(**sizes), {}, rows, mean_tokens=27.0, label_count=2, fingerprints={}
    )


@pytest.mark.parametrize(
    ("rows", "sizes", "expected"),
    [
        ({ALL_ROWS: 1000}, {}, (700, 100, 200)),
        ({ALL_ROWS: 8530}, {"train_size": 4000, "test_size": 2000, "validation_size": 500},
         (4000, 500, 2000)),
        ({ALL_ROWS: 1000}, {"train_size": 0.5}, (500, 100, 200)),
        ({"train": 900, "test": 300}, {}, (810, 90, 300)),
        ({"train": 900, "validation": 50, "test": 300}, {"train_size": 100}, (100, 50, 300)),
    ],
)  # fmt: skip
def test_texts_are_counted_by_split(
    rows: dict[str, int], sizes: dict[str, Any], expected: tuple[int, int, int]
) -> None:
    counts = estimate.split_sizes(data(rows, **sizes))
    assert (counts[Split.TRAIN], counts[Split.VALIDATION], counts[Split.TEST]) == expected


def seconds(spec: TrainSpec, speed: float, rows: int = 8530) -> int:
    sizes = data({ALL_ROWS: rows})
    return estimate.estimate_encoder_cost(spec, shape=SHAPE, data=sizes, speed=speed).seconds


def test_more_work_and_less_speed_take_longer() -> None:
    lora, full = TrainSpec(method=LoraSpec()), TrainSpec(method=FullFineTuningSpec())
    twice = TrainSpec(method=LoraSpec(), optim=OptimSpec(epochs=4))
    assert seconds(lora, 1e11) < seconds(full, 1e11)
    assert seconds(lora, 1e11) < seconds(twice, 1e11)
    assert seconds(lora, 1e11, rows=100) < seconds(lora, 1e11)
    again = TrainSpec(method=LoraSpec(), runtime=RuntimeSpec(gradient_checkpointing=True))
    assert seconds(lora, 1e11) < seconds(again, 1e11) < seconds(twice, 1e11)
    fixed = seconds(lora, 1e20)
    assert estimate.STARTUP_SECONDS <= fixed < 20
    assert seconds(lora, 1e11) - fixed == pytest.approx(2 * (seconds(lora, 2e11) - fixed), abs=2)


def test_fitting_the_head_costs_a_pass_over_some_texts() -> None:
    random = TrainSpec(method=LoraSpec(), head_init=HeadInit.RANDOM)
    few, many, more = (
        seconds(TrainSpec(method=LoraSpec()), 1e9, rows) - seconds(random, 1e9, rows)
        for rows in (1000, 20_000, 40_000)
    )
    assert 0 < few < many
    assert more == pytest.approx(many, abs=1)
    going_on = [
        estimate.estimate_encoder_cost(
            spec, shape=SHAPE, data=data({ALL_ROWS: 1000}), speed=1e9, completed_share=0.5
        )
        for spec in (random, TrainSpec(method=LoraSpec()))
    ]
    assert going_on[0] == going_on[1]


def test_the_latest_jobs_of_the_device_class_set_the_speed() -> None:
    assert (
        estimate.median_speed_or_default([], DeviceClass.CPU)
        == estimate.DEFAULT_SPEEDS[DeviceClass.CPU]
    )
    assert estimate.median_speed_or_default([], DeviceClass.GPU) > estimate.median_speed_or_default(
        [], DeviceClass.CPU
    )
    assert estimate.median_speed_or_default([3e11, 1e11, 0.0, 2e11], DeviceClass.CPU) == 2e11


def finish_next(
    worker: FakeWorker,
    database: Database,
    tokens_per_second: float,
    train_seconds: float = 60.0,
    device_class: DeviceClass = DeviceClass.CPU,
) -> None:
    lease = worker.claim(device_class).lease
    with database.write() as session:
        ref = ArtifactRef(f"jobs/{uuid4()}", "0" * 64, 1)
        made = artifacts.add_artifact(session, job_id=lease.job_id, kind="model", ref=ref)
    summary = {"tokens_per_second": tokens_per_second, "train_seconds": train_seconds}
    worker.finish(lease, Succeeded(made.id, summary))


def test_a_finished_job_corrects_the_next_estimate(
    submit: Submit, worker: FakeWorker, database: Database
) -> None:
    guessed = submit()["estimated_seconds"]
    finish_next(worker, database, tokens_per_second=100_000)  # about 50 times the usual
    learned = submit()["estimated_seconds"]
    on_gpu = submit(runtime={"device": "cuda"})["estimated_seconds"]
    assert learned < guessed / 5
    assert learned > estimate.STARTUP_SECONDS
    finish_next(worker, database, tokens_per_second=100, train_seconds=600.0)
    finish_next(worker, database, 100, train_seconds=60_000.0, device_class=DeviceClass.GPU)
    assert submit()["estimated_seconds"] > learned
    assert submit(runtime={"device": "cuda"})["estimated_seconds"] > on_gpu


def test_two_labels_of_one_task_share_a_row_of_weights() -> None:
    """Any of two labels are two logistic regressions."""
    one, two = (
        estimate.estimate_linear_parameters(data({ALL_ROWS: 8530}), task)
        for task in ("single_label", "multi_label")
    )
    assert two == 2 * one


@pytest.mark.parametrize(
    ("tokens_per_second", "train_seconds"),
    [(100_000, 2.0), (100, 20.0)],
    ids=["short", "small-on-a-busy-machine"],
)
def test_a_very_short_or_small_run_does_not_count_for_the_speed(
    submit: Submit,
    worker: FakeWorker,
    database: Database,
    tokens_per_second: float,
    train_seconds: float,
) -> None:
    guessed = submit()["estimated_seconds"]
    finish_next(worker, database, tokens_per_second, train_seconds)
    assert submit()["estimated_seconds"] == guessed


@pytest.mark.parametrize("database_kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize(
    ("method", "train_seconds"), [("lora", 2.0), ("auto", 60.0)], ids=["short", "auto"]
)
def test_recent_jobs_without_a_speed_do_not_hide_earlier_measurements(
    submit: Submit, worker: FakeWorker, database: Database, method: str, train_seconds: float
) -> None:
    submit()
    finish_next(worker, database, tokens_per_second=100_000)
    learned = submit()["estimated_seconds"]
    worker.claim()
    for _ in range(SPEED_SAMPLE_JOBS):
        submit(method={"type": method})
        finish_next(worker, database, tokens_per_second=100, train_seconds=train_seconds)
    assert submit()["estimated_seconds"] == learned


@pytest.mark.parametrize("long_texts", ["cut", "windows"])
@pytest.mark.parametrize("characters", [100, 3000])
def test_auto_plans_for_texts_of_the_same_length_as_a_local_run(
    submit: Submit,
    upload: Upload,
    monkeypatch: pytest.MonkeyPatch,
    long_texts: LongTexts,
    characters: int,
) -> None:
    base = SimpleNamespace(config=minilm.build_distilbert_config_dict(), name=minilm.NAME)
    monkeypatch.setattr(auto, "resolve_base_or_artifact", lambda *_: base)
    plan, planned = model_selection.plan_candidates, []

    def record(texts: int, budget: float, seconds_of: Any, **more: Any) -> Any:
        planned.append(seconds_of.__self__.mean_tokens)
        return plan(texts, budget, seconds_of, **more)

    monkeypatch.setattr(model_selection, "plan_candidates", record)
    upload(mean_characters=float(characters))
    submit(method={"type": "auto"}, data={"source": "mails", "long_texts": long_texts})
    spec = TrainSpec(method=AutoSpec(), data=DataSpec(long_texts=long_texts))
    auto._plan_candidates(spec, [Example(i, "x" * characters, i % 2) for i in range(100)], 2)
    in_service, in_local_run = planned
    assert in_service == in_local_run
