"""Datasets without duplicates, stratified draws, stored cells, and correct intervals."""

import json
import os
import zipfile
from collections import Counter
from collections.abc import Callable
from operator import eq
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression

import benchmarks.settings
from benchmarks import child_process
from benchmarks.results_file import DIRECTORY, ResultsFile
from benchmarks.small import cells, ours, plan, setfit_process, sets, summary, wheels
from benchmarks.small.__main__ import is_kept, main
from benchmarks.small.sets import Texts
from benchmarks.small.summary import gap
from benchmarks.small.vectors import Vectors
from benchmarks.small.wheels import Wheel
from lora_core import manifest
from lora_core.cost_model import DEFAULT_FLOPS_PER_SECOND
from lora_core.data.rows import TextRow
from lora_core.specs.method import AutoSpec
from lora_core.specs.train import TrainSpec
from lora_core.training import auto
from tests.slow import slow_but

Metrics = dict[str, Any]
Run = Callable[..., Metrics]
REPOSITORY = Path(__file__).parents[2]
STORED = DIRECTORY / "small.jsonl"
START, END = "<!-- made by `UPDATE_DOCS=1 pytest tests/benchmarks` -->\n\n", "\n\n<!-- end -->"
CPU_SPEED = cast("dict[str, float]", DEFAULT_FLOPS_PER_SECOND)
QUICK = [*plan.cells(["rotten-tomatoes", "imdb"], quick=True)]


def row(text: str, label: str) -> TextRow:
    return TextRow(1, text, label)


def test_datasets_have_no_duplicates_or_leaks() -> None:
    train, test = sets.clean(
        [("A b", "x"), ("a  B ", "x"), ("c", "x"), ("C", "y"), ("d", "y"), ("e", "x"), (" ", "x")],
        [("D", "y"), ("f", "x"), ("f", "x")],
    )
    assert [(row.text, row.label) for row in test] == [("D", "y"), ("f", "x")]
    assert [(row.text, row.label) for row in train] == [("A b", "x"), ("e", "x")]


@pytest.mark.parametrize("name", slow_but(["rotten-tomatoes", "imdb"], "rotten-tomatoes"))
def test_draws_are_stratified_and_exclude_test_texts(name: str) -> None:
    texts = sets.load(name, quick=True)
    test = {row.text for row in texts.test}
    small, large, other = texts.drawn(16, 3), texts.drawn(32, 3), texts.drawn(16, 4)
    assert Counter(row.label for row in small) == {"negative": 8, "positive": 8}
    assert {row.text for row in small} < {row.text for row in large}
    assert {row.text for row in small} != {row.text for row in other}
    assert not test & {row.text for row in texts.pool}
    assert texts.drawn(16, 3) == small


def test_every_label_is_drawn() -> None:
    pool = [row(f"{label} {i}", label) for label, n in (("a", 200), ("b", 3)) for i in range(n)]
    drawn = Texts(tuple(pool), ()).drawn(16, 0)
    assert Counter(row.label for row in drawn) == {"a": 15, "b": 1}


def packed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel in the download cache."""
    monkeypatch.setenv("LORAWORKS_CACHE", str(folder))
    path = folder / "bench-small" / "wheels" / "few-1-py3-none-any.whl"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("few/texts.csv", "text,label\n")
    return path


def test_wheel_is_read_without_installing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(tmp_path, monkeypatch)
    wheel = Wheel("few", "1", path.name, manifest.file_sha256(path))
    assert wheels.archive(wheel).read("few/texts.csv") == b"text,label\n"


def test_wheel_with_another_checksum_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(tmp_path, monkeypatch)
    with pytest.raises(SystemExit, match="is not few 1: its sha256 is"):
        wheels.archive(Wheel("few", "1", path.name, "0" * 64))


def test_best_contender_is_chosen_and_compared_on_different_halves() -> None:
    mine = np.array([70.0, 70, 70, 70, 70, 70])
    competitors = {  # in even draws the first is the better one, in odd draws the second
        "first": np.array([75.0, 60, 75, 60, 75, 60]),
        "second": np.array([71.0, 72, 71, 72, 71, 72]),
    }
    found = gap(competitors, mine)
    # even draws judge the second, odd ones the first: +1 and -10, three times each
    assert (found.chosen, found.mean) == (("first", "second"), -4.5)
    low, high = stats.t.interval(0.95, 5, loc=-4.5, scale=stats.sem([1, -10] * 3))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.draws == 6


def test_comparison_is_unbiased_for_equal_contenders() -> None:
    draw, inside, means, lucky = np.random.default_rng(5), 0, [], []
    for _ in range(1500):
        scores = draw.normal(70, 2, (4, 10))
        found = gap({str(i): each for i, each in enumerate(scores[:3])}, scores[3])
        inside += found.low <= 0 <= found.high
        means.append(found.mean)
        lucky.append(scores[:3].mean(axis=1).max() - scores[3].mean())
    assert (
        abs(np.mean(means)) < 0.1 < 0.4 < np.mean(lucky)
    )  # the naive comparison is biased by half a point
    assert 0.92 < inside / 1500 < 0.98


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the cells that were computed, with made-up results."""
    names: list[str] = []
    accuracy = {"linear": 0.6, "probe": 0.7, "setfit": 0.65, "lora": 0.75, "auto": 0.8}

    def measure(_: str, name: str, *, quick: bool) -> Metrics:
        names.append(name)
        cell = plan.find(name, quick=quick)
        scores = [accuracy[cell.contender] + 0.01 * number for number in cell.draws]
        return {"settings": cells.settings(cell), "draws": cell.draws, "accuracy": scores}

    monkeypatch.setattr(child_process, "measure", measure)
    return names


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """A small run; returns the last line of output."""

    def run(*words: str) -> Metrics:
        main(["--quick", "--results", str(tmp_path), *words])
        printed: Metrics = json.loads(capsys.readouterr().out.splitlines()[-1])
        return printed

    return run


@pytest.mark.slow  # reads imdb; `test_reproduce.py` continues stored cells, too
def test_stopped_run_continues(computed: list[str], run: Run) -> None:
    run("--only", "imdb")
    assert computed == [f"imdb/24/{name}/0" for name in plan.CONTENDERS]
    run()
    assert sorted(computed) == sorted(cell.name for cell in QUICK)
    run()
    assert len(computed) == len(QUICK) == 10
    run("--fresh", "--only", "/probe/")
    assert len(computed) == 12


@pytest.mark.slow  # reads imdb
def test_changed_settings_are_recomputed(
    computed: list[str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    computed.clear()
    version = benchmarks.settings.CLASSIFICATION_VERSION
    monkeypatch.setattr(benchmarks.settings, "CLASSIFICATION_VERSION", version + 1)
    printed = run("--only", "/linear/")
    assert printed["compared"] == 0  # results of another training version are not shown
    assert printed["sets"]["imdb 24"]["missing"] == ["lora", "auto"]
    assert run()["compared"] == 2
    sets = ("rotten-tomatoes", "imdb")
    assert computed == [f"{data}/24/{name}/0" for name in ("lora", "auto") for data in sets]


@pytest.mark.slow  # reads imdb
def test_totals_are_null_until_all_planned_cells_are_there(computed: list[str], run: Run) -> None:
    run("--only", "rotten-tomatoes")
    run("--only", "imdb", "/auto/")
    for name in ("linear", "probe", "setfit"):
        printed = run("--only", "imdb", f"/{name}/")
        assert printed["worst_gap_low"] is printed["mean_gain"] is None
        assert (printed["compared"], printed["planned"]) == (1, 2)
    assert printed["sets"]["imdb 24"]["missing"] == ["lora"]
    assert printed["sets"]["imdb 24"]["gap"] == -10.0  # to the probe, so far
    printed = run()
    assert (printed["compared"], printed["planned"]) == (2, 2)
    assert printed["mean_gain"] == printed["sets"]["imdb 24"]["gap"] * -1 == 5.0
    assert printed["worst_gap_low"] == -5.0  # 75 and 76% against 80 and 81%: constant difference
    assert printed["sets"]["imdb 24"]["best"] == "lora"
    assert printed["lora_256_gain"] is printed["rt_1000"] is printed["rt_4000"] is None


def test_worst_gap_is_known_once_it_misses_the_goal(
    computed: list[str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--only", "rotten-tomatoes")["worst_gap_low"] is None
    monkeypatch.setitem(summary.GOALS, "worst_gap_low", summary.Goal(-20.0, at_most=True))
    printed = run("--only", "rotten-tomatoes")
    assert (printed["worst_gap_low"], printed["mean_gain"]) == (-5.0, None)


def test_page_matches_stored_results() -> None:
    page, results = REPOSITORY / "docs/explanation/few-labels.md", ResultsFile(STORED)
    every = [*plan.cells([*sets.TABLE])]
    current = [cell for cell in every if is_kept(cell, results)]
    text, table = page.read_text(encoding="utf-8"), summary.page(every, current, results)
    before, after = text.partition(START)[0], text.partition(END)[2]
    expected = before + START + table + END + after
    if os.environ.get("UPDATE_DOCS") == "1":
        page.write_text(expected, encoding="utf-8")
    else:
        assert text == expected, "run `UPDATE_DOCS=1 pytest tests/benchmarks`"


def test_goal_is_met_missed_or_not_known_yet() -> None:
    at_most, at_least = summary.Goal(1.0, at_most=True), summary.Goal(80.0)
    assert at_most.judge(-0.5) == ("≤ 1.0", "-0.50", "met")
    assert at_most.judge(1.01) == ("≤ 1.0", "1.01", "missed")
    assert at_least.judge(80.0) == ("≥ 80.0", "80.00", "met")
    assert at_least.judge(79.4) == ("≥ 80.0", "79.40", "missed")
    assert at_least.judge(None) == ("≥ 80.0", "", "results are missing")


def test_result_is_stale_once_another_plan_fits_into_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hashes() -> list[str]:
        names = "questions/256/auto/0", "newsgroups/1000/auto/0", "newsgroups/1000/lora/0"
        return [cells.settings(plan.find(name)) for name in names]

    today = hashes()
    assert today[0] == ResultsFile(STORED).metrics("questions/256/auto/0")["settings"]
    monkeypatch.setitem(CPU_SPEED, "cpu", 2e11)
    assert [*map(eq, hashes(), today)] == [True, False, True]  # all folds were tried before
    monkeypatch.setitem(CPU_SPEED, "cpu", 1e9)
    assert [*map(eq, hashes(), today)] == [False, False, True]


def test_run_tries_what_its_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[TrainSpec] = []

    def train(spec: TrainSpec, *, out_dir: Path, **_: Any) -> Metrics:
        given.append(spec)
        (out_dir / "predictions").mkdir(parents=True)
        (out_dir / "predictions" / "test.jsonl").write_text('{"predicted": 1}\n')
        return {"labels": ["negative", "positive"]}

    monkeypatch.setattr(auto, "train_auto", train)
    monkeypatch.setitem(CPU_SPEED, "cpu", 1e6)
    texts = sets.load("rotten-tomatoes", quick=True)
    spec = {"method": {"type": "auto"}}
    assert ours.answers(spec, texts, texts.drawn(24, 0), seed=3) == ["positive"]
    found = given[0].method
    assert isinstance(found, AutoSpec)
    assert found.candidates
    planned = [[each.method.type, each.folds, each.repeats] for each in found.candidates]
    assert ours.settings(spec, 24, texts.facts)["plan"] == planned
    assert {each[0] for each in planned} == {"linear"}


def test_unknown_cell_is_refused(run: Run) -> None:
    with pytest.raises(SystemExit, match="no cell imdb/lora"):
        run("--cell", "imdb/lora")
    with pytest.raises(SystemExit, match="no cell x/24/lora/0"):
        run("--cell", "x/24/lora/0")


def test_cell_scores_a_contender_on_each_draw() -> None:
    metrics = cells.run(plan.find("rotten-tomatoes/24/linear/0", quick=True))
    assert [len(metrics[name]) for name in ("accuracy", "macro_f1")] == [2, 2]
    assert metrics["test_texts"] == 60
    assert min(metrics["accuracy"]) > 0.3


@pytest.mark.slow  # computes the vectors of hundreds of texts
def test_probe_uses_mean_pooling() -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    from lora_core.samples import minilm

    texts = sets.load("rotten-tomatoes", quick=True)
    vectors = Vectors(texts).of(texts.pool)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(minilm.build_cached_checkpoint())
    model = AutoModel.from_pretrained(minilm.build_cached_checkpoint())
    with torch.inference_mode():  # each text by itself: nothing is padded
        for text, vector in zip(texts.pool[:3], vectors, strict=False):
            tokens = tokenizer(text.text, return_tensors="pt", return_token_type_ids=False)
            mean = model(**tokens).last_hidden_state[0].mean(0).numpy()
            assert vector == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)
    answers = cells.run(plan.find("rotten-tomatoes/24/probe/0", quick=True))
    train = texts.drawn(24, 0)
    fitted = LogisticRegression().fit(
        [vectors[texts.pool.index(row)] for row in train], [row.label for row in train]
    )
    test = Vectors(texts).of(texts.test)
    right = fitted.score(test, [row.label for row in texts.test])
    assert answers["accuracy"][0] == pytest.approx(right, abs=1e-5)


@pytest.mark.slow  # trains on real texts
def test_predictions_are_in_the_order_of_the_test_split() -> None:
    texts = sets.load("rotten-tomatoes", quick=True)
    train = [*texts.drawn(24, 0)]
    answers = ours.answers({"method": {"type": "baseline"}}, texts, train, seed=0)
    assert len(answers) == 60
    assert {*answers} <= {"negative", "positive"}


def test_missing_setfit_environment_error_shows_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setfit_process, "PYTHON", tmp_path / "python")
    with pytest.raises(SystemExit, match="make bench-small"):
        setfit_process.answers({}, Texts((), ()), [], seed=0)
