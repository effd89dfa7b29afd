"""Learning curves: measurement, extrapolation, and data without a curve."""

import os
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, precision_recall_curve
from sklearn.pipeline import make_pipeline

from lora_core import cache
from lora_core.data import learning_curve as curve
from lora_core.data.load import load_splits
from lora_core.data.more_labels_estimate import (
    MIN_TEXTS,
    ExpectedGain,
    MoreLabelsEstimate,
    describe_curve_model,
    describe_gains,
)
from lora_core.data.rows import TextRow
from lora_core.data.split import Splits
from lora_core.specs.data import DataSpec
from lora_core.specs.encoded_labels import encode_label_set, encode_targets, extract_target_label
from lora_core.specs.task import TaskType
from lora_core.tasks.multi_label import MultiLabel
from lora_core.tasks.primary_metric import Predictions
from lora_core.tasks.regression import Regression
from lora_core.tasks.single_label import SingleLabel
from lora_core.tasks.targets import Targets


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORAWORKS_CACHE", str(tmp_path))
    return tmp_path / "learning-curves"


def rows_labeled(*labels: str) -> list[TextRow]:
    """Texts with no common word except one that reveals the label."""
    return [TextRow(i, f"word{i} other{i} sign{label}", label) for i, label in enumerate(labels)]


def rows_with_labels(count: int, labels: int = 2) -> list[TextRow]:
    return rows_labeled(*(str(i % labels) for i in range(count)))


TWO = SingleLabel(("0", "1"))


def law_learner(truth: curve.Indices, error: Callable[[float], float]) -> curve.Learner:
    """Predicts wrongly at random, at the error rate of the curve."""
    rng = np.random.default_rng(1)

    def learn(train: curve.Indices, held_out: curve.Indices) -> curve.Indices:
        wrong = rng.random(len(held_out)) < error(len(train))
        return np.where(wrong, 1 - truth[held_out], truth[held_out])

    return learn


def estimate_for_law(error: Callable[[float], float], count: int = 2000) -> MoreLabelsEstimate:
    truth = np.arange(count) % 2
    return curve.measure_and_extrapolate_curve(
        law_learner(truth, error), TWO, truth, texts=count, basis="probe"
    )


@pytest.mark.parametrize(
    "error",
    [
        lambda n: 0.05 + 1.5 * n**-0.4,
        lambda n: 3 * n**-0.5,
        lambda n: 0.62 - 0.04 * np.log(n),
        lambda n: 0.6 - 0.04 * n**0.25,  # not level yet
    ],
    ids=["asymptote", "power", "logarithm", "accelerating"],
)
def test_interval_covers_the_true_curve(error: Callable[[float], float]) -> None:
    found = estimate_for_law(error)
    assert found.code == "measured"
    assert [each.texts for each in found.expected] == [2000, 4000, 8000]
    assert [each.texts for each in found.gains] == [4000, 8000]
    for gain in found.gains:
        assert gain.low <= error(2000) - error(gain.texts) <= gain.high
    for each in found.expected:
        assert each.low <= 1 - error(each.texts) <= each.high
        assert each.low <= each.value <= each.high
    assert found.message == describe_gains(found.gains)


def test_fewer_texts_give_a_wider_interval() -> None:
    few, many = (
        estimate_for_law(lambda n: 0.05 + 1.5 * n**-0.4, count).gains[0] for count in (250, 4000)
    )
    assert few.high - few.low > 2 * (many.high - many.low)


def test_flat_curve_predicts_negligible_gain() -> None:
    found = estimate_for_law(lambda _: 0.02, 4000)
    assert found.gains[1].high < 0.01
    assert found.message.startswith("More labels of this kind would hardly help: with twice as")


def test_sudden_drop_stays_within_possible_values() -> None:
    found = estimate_for_law(lambda n: 0.45 if n < 1000 else 0.001)
    numbers = [share for each in found.expected for share in (each.low, each.value, each.high)]
    assert all(0 <= number <= 1 for number in numbers)
    assert found.gains[1].high <= 0.5


def test_no_extrapolation_below_the_majority_baseline() -> None:
    truth = (np.arange(400) % 4 == 0).astype(np.int64)
    found = curve.measure_and_extrapolate_curve(
        lambda _, held_out: 0 * held_out, TWO, truth, texts=400, basis="linear"
    )
    assert (found.code, found.gains, found.expected) == ("not_above_majority", (), ())
    assert "the most frequent label (75.0%)" in found.message
    assert [each.value for each in found.measured] == [0.75] * 5


def test_held_out_texts_are_unseen_and_subsets_are_nested() -> None:
    truth = np.arange(300) % 3
    predictions: list[tuple[set[int], set[int]]] = []

    def learn(train: curve.Indices, held_out: curve.Indices) -> curve.Indices:
        counts = np.bincount(truth[train], minlength=3)
        assert np.ptp(counts) <= 0.2 * len(train)
        predictions.append((set(train), set(held_out)))
        return truth[held_out]

    scores = curve.measure_curve(learn, SingleLabel(("0", "1", "2")), truth)
    assert scores.train_sizes.tolist() == [15, 30, 60, 120, 240]
    assert scores.scores.shape == (5, 300)
    assert len(predictions) == 5 * curve.MAX_RUNS
    for run in range(curve.MAX_RUNS):
        shares = predictions[5 * run : 5 * run + 5]
        assert len({frozenset(held_out) for _, held_out in shares}) == 1
        assert all(not train & held_out for train, held_out in shares)
        assert all(small[0] < large[0] for small, large in pairwise(shares))


@pytest.fixture(scope="module")
def drawn() -> Splits:
    """Some of the real reviews, which take a second to read."""
    return load_splits(DataSpec(train_size=300, validation_size=200, test_size=100))


def test_linear_learner_matches_scikit_learn(drawn: Splits) -> None:
    examples = [*drawn.train, *drawn.validation]
    texts, truth = [e.text for e in examples], np.array([e.label for e in examples])
    rows = [
        TextRow(i, text, str(label))
        for i, (text, label) in enumerate(zip(texts, truth, strict=True))
    ]
    learner = curve.linear_learner(rows, *curve.build_task_and_targets(rows, "single_label"))
    train, held_out = np.arange(300), np.arange(300, 500)
    reference = make_pipeline(
        TfidfVectorizer(sublinear_tf=True),
        LogisticRegression(C=curve.INVERSE_REGULARIZATION["linear"], max_iter=1000),
    ).fit(texts[:300], truth[:300])
    ours = learner(train, held_out)
    assert (ours == reference.predict(texts[300:])).mean() > 0.98


@pytest.mark.slow  # on real texts; above, on made-up curves
def test_interval_covers_the_accuracy_with_twice_as_many_texts() -> None:
    splits = load_splits(DataSpec(train_size=2000, validation_size=100, test_size=2000))
    rows = [TextRow(i, e.text, splits.labels[e.label]) for i, e in enumerate(splits.train)]
    found = curve.estimate_gain_of_more_labels(rows[:1000])
    both = [*splits.train, *splits.test]
    truth = np.array([e.label for e in both])
    learner = curve.linear_learner(
        [TextRow(i, e.text, "") for i, e in enumerate(both)], SingleLabel(splits.labels), truth
    )
    held_out = np.arange(2000, 4000)
    once, twice = (
        (learner(np.arange(count), held_out) == truth[held_out]).mean() for count in (1000, 2000)
    )
    [gain, _] = found.gains
    assert (found.texts, found.used, gain.texts) == (1000, 1000, 2000)
    assert gain.low <= twice - once <= gain.high


def noisy_number_learner(targets: Targets, error: Callable[[float], float]) -> curve.Learner:
    """Predicts numbers with a root mean squared error that depends on the number of texts."""
    rng = np.random.default_rng(1)

    def learn(train: curve.Indices, held_out: curve.Indices) -> Predictions:
        noise = rng.standard_normal(len(held_out)) * error(len(train))
        return targets[held_out] + noise

    return learn


@pytest.mark.parametrize("scale", [0.001, 1.0, 50_000.0])
def test_interval_of_numbers_covers_the_true_curve(scale: float) -> None:
    """The curve does not depend on the unit of the numbers."""

    def error(texts: float) -> float:
        return scale * float(0.2 + 2 * texts**-0.4)

    numbers = (scale * np.random.default_rng(0).standard_normal(2000)).astype(np.float32)
    task = Regression.of_training_targets(numbers.tolist())
    learner = noisy_number_learner(numbers, error)
    found = curve.measure_and_extrapolate_curve(learner, task, numbers, texts=2000, basis="probe")
    assert (found.code, found.metric) == ("measured", "rmse")
    for gain in found.gains:
        assert gain.low <= error(gain.texts) - error(2000) <= gain.high < 0
    for each in found.expected:
        assert each.low <= error(each.texts) <= each.high
        assert each.low <= each.value <= each.high
        assert each.accuracy is None
    assert re.fullmatch(
        r"With twice as many labels \(4,000\) expect the RMSE to change by \S+ to \S+, with four "
        r"times as many \(8,000\) by \S+ to \S+\.",
        found.message,
    )
    assert "a probe (ridge regression on the frozen base model)" in str(describe_curve_model(found))


def test_interval_of_several_labels_covers_the_true_curve() -> None:
    """A label is missed or added at the error rate: F1 is 1 - error, as each has half the texts."""
    targets = np.stack([np.arange(2000) % 2, np.arange(2000) // 2 % 2], axis=1).astype(np.float32)
    rng = np.random.default_rng(1)

    def error(texts: float) -> float:
        return float(0.05 + 1.5 * texts**-0.4)

    def learn(train: curve.Indices, held_out: curve.Indices) -> Predictions:
        wrong = rng.random((len(held_out), 2)) < error(len(train))
        return np.asarray((targets[held_out] > 0) != wrong)

    task = MultiLabel(("a", "b"))
    found = curve.measure_and_extrapolate_curve(learn, task, targets, texts=2000, basis="linear")
    assert (found.code, found.metric) == ("measured", "macro_f1")
    assert found.measured[-1].value == pytest.approx(1 - error(1600), abs=0.01)
    for gain in found.gains:
        assert gain.low <= error(2000) - error(gain.texts) <= gain.high
    assert "points of macro F1, with four times as many" in found.message


def test_learners_of_numbers_and_several_labels_match_scikit_learn(drawn: Splits) -> None:
    examples = [*drawn.train, *drawn.validation]
    texts = [each.text for each in examples]
    train, held_out = np.arange(300), np.arange(300, 500)
    vectorizer = TfidfVectorizer(sublinear_tf=True).fit(texts[:300])
    x, x_test = vectorizer.transform(texts[:300]), vectorizer.transform(texts[300:])

    numbers = np.array([len(text) for text in texts], dtype=np.float64)
    rows = [TextRow(i, text, str(numbers[i])) for i, text in enumerate(texts)]
    learner = curve.linear_learner(rows, *curve.build_task_and_targets(rows, "regression"))
    ridge = Ridge(alpha=curve.RIDGE_ALPHA).fit(x, numbers[:300])
    np.testing.assert_allclose(learner(train, held_out), ridge.predict(x_test), rtol=1e-3)

    has = np.array([["the" in text.split(), "not" in text.split()] for text in texts])
    names = np.array(["the", "not"])
    rows = [TextRow(i, text, encode_label_set(names[has[i]])) for i, text in enumerate(texts)]
    learner = curve.linear_learner(rows, *curve.build_task_and_targets(rows, "multi_label"))
    predicted = learner(train, held_out)
    for i, expected in ((1, has[:, 0]), (0, has[:, 1])):  # labels are in alphabetic order
        model = LogisticRegression(C=curve.INVERSE_REGULARIZATION["linear"], max_iter=1000)
        scores = model.fit(x, expected[:300]).predict_proba(x_test)[:, 1]
        precision, recall, _ = precision_recall_curve(expected[300:], scores)
        best = (2 * precision * recall / np.maximum(precision + recall, 1e-9)).max()
        assert f1_score(expected[300:], predicted[:, i]) == pytest.approx(best, abs=0.02)


def test_rare_labels_and_texts_without_a_label() -> None:
    rows = [TextRow(i, f"text {i}", encode_label_set(["a"] * (i % 2))) for i in range(300)]
    rows.append(TextRow(300, "rare", encode_label_set(["a", "b"])))
    task, targets = curve.build_task_and_targets(rows, "multi_label")
    assert (task.labels, targets.shape, targets.sum()) == (("a",), (301, 1), 151)


def test_many_labels_limit_the_number_of_texts() -> None:
    rows = [TextRow(i, f"text {i}", encode_label_set([str(i % 100)])) for i in range(4000)]
    assert len(curve.subsample_for_curve(rows, "multi_label")) == curve.MAX_FITTED_LABELS // 100


def test_labels_that_are_rare_only_in_the_sample_give_no_curve() -> None:
    """Of 2,000 texts 400 are used, 4 with each label."""
    rows = [TextRow(i, f"text {i}", encode_label_set([str(i % 100)])) for i in range(2000)]
    found = curve.estimate_gain_of_more_labels(rows, "multi_label")
    assert (found.code, found.texts, found.basis) == ("too_few", 2000, None)
    assert "on 400 of the 2,000 labeled texts" in found.message


@pytest.mark.parametrize(
    ("task", "labels", "code"),
    [
        ("multi_label", ["[]"] * 400, "one_label"),
        ("multi_label", ['["a"]', "[]"] * 100, "too_few"),
        ("multi_label", [f'["{i}"]' for i in range(400)], "too_few"),
        ("regression", ["1.0"] * 400, "one_label"),
        ("regression", [f"{i}.5" for i in range(249)], "too_few"),
    ],
)
def test_missing_curve_of_other_tasks(task: TaskType, labels: list[str], code: str) -> None:
    rows = [TextRow(i, f"text {i}", label) for i, label in enumerate(labels)]
    assert curve.estimate_gain_of_more_labels(rows, task).code == code


@pytest.mark.slow  # measures six curves
def test_each_of_several_targets_has_the_curve_it_has_alone() -> None:
    topics = [("card", "app")[i % 2] for i in range(400)]
    words = [{"card": "bank", "app": "phone"}[topic] for topic in topics]
    texts = [f"{word} {'ab'[i % 3 == 0]} {i}" for i, word in enumerate(words)]
    labels = [
        encode_targets({"topic": topic, "stars": float(i % 5), "tags": ("a",) if i % 3 else ()})
        for i, topic in enumerate(topics)
    ]
    rows = [
        TextRow(i, text, label) for i, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    found = curve.estimate_gain_of_more_labels(rows, "several_targets", 3 * 400)
    assert found.code == "by_target"
    tasks: dict[str, TaskType] = {
        "topic": "single_label",
        "stars": "regression",
        "tags": "multi_label",
    }
    assert {name: each.metric for name, each in found.targets.items()} == {
        "topic": "accuracy",
        "stars": "rmse",
        "tags": "macro_f1",
    }
    for name, task in tasks.items():
        alone = [
            TextRow(row.number, row.text, extract_target_label(row.label, name)) for row in rows
        ]
        assert found.targets[name] == curve.estimate_gain_of_more_labels(alone, task)


def test_several_targets_without_enough_texts() -> None:
    label = encode_targets({"topic": "card", "stars": 1.0})
    rows = [TextRow(i, f"text {i}", label) for i in range(300)]
    found = curve.estimate_gain_of_more_labels(rows, "several_targets")
    assert {name: each.code for name, each in found.targets.items()} == {
        "topic": "one_label",
        "stars": "one_label",
    }


@pytest.mark.parametrize(
    ("task", "label", "message"),
    [
        ("multi_label", lambda i: '["a", "b"]' if i % 3 else '["b"]', "any labels"),
        ("regression", lambda i: str(float(i % 7)), "the mean, 2.99 (1.996)"),
    ],
)
def test_no_extrapolation_below_the_constant(
    task: TaskType, label: Callable[[int], str], message: str
) -> None:
    rows = [TextRow(i, f"{chr(0x4E00 + i)} !", label(i)) for i in range(300)]
    found = curve.estimate_gain_of_more_labels(rows, task)
    assert found.code == "not_above_majority"
    assert f"always predicting {message}" in found.message


@pytest.mark.parametrize(
    ("rows", "code", "message"),
    [
        ([], "no_labels", "nothing to learn from"),
        (rows_with_labels(400, labels=1), "one_label", "at least two"),
        (rows_with_labels(2), "too_few", "2 labeled texts are too few"),
        (rows_with_labels(100), "too_few", "100 labeled texts are too few"),
        (rows_with_labels(249), "too_few", "249 labeled texts are too few"),
        (rows_with_labels(600, labels=600), "too_few", "Of the 600 labeled texts 0 have a label"),
        (rows_with_labels(600, labels=200), "too_few", "Of the 600 labeled texts 0 have a label"),
        (
            rows_labeled(*["usual"] * 400, *map(str, range(9))),
            "too_few",
            "Only one label has at least 5 texts. The effect of more labels can be estimated when "
            "two have.",
        ),
    ],
)  # fmt: skip
def test_missing_curve_is_explained(rows: list[TextRow], code: str, message: str) -> None:
    found = curve.estimate_gain_of_more_labels(rows)
    assert (found.code, found.basis, found.measured, found.gains) == (code, None, (), ())
    assert message in found.message
    assert describe_curve_model(found) is None
    assert MoreLabelsEstimate.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize("labels", [2, 5, 50, 100])
def test_any_number_of_labels_gives_finite_numbers(labels: int) -> None:
    found = curve.estimate_gain_of_more_labels(rows_with_labels(600, labels=labels))
    assert found.code in ("measured", "not_above_majority")
    assert len(found.measured) == 5
    assert "NaN" not in found.model_dump_json()
    assert "null" not in found.model_dump_json()


def test_texts_without_words_do_not_beat_the_majority() -> None:
    rows = [TextRow(i, f"{chr(0x4E00 + i)} !", str(i % 2)) for i in range(300)]
    assert curve.estimate_gain_of_more_labels(rows).code == "not_above_majority"


def test_duplicates_count_once() -> None:
    rows = [TextRow(i, f"text number {i // 3}", str(i // 3 % 2)) for i in range(900)]
    found = curve.estimate_gain_of_more_labels(rows)
    assert (found.texts, found.used) == (300, 300)
    assert found.code == "not_above_majority"  # only the copies can be learned


@pytest.mark.parametrize("pair", [None, "p" * 90])
def test_long_texts_are_cut_before_there_are_too_few(pair: str | None) -> None:
    rows = [TextRow(i, f"text {i} " + "a" * 99, str(i % 2), pair=pair) for i in range(900)]
    budget = MIN_TEXTS * 40
    used = curve.subsample_for_curve(rows, "single_label", characters=budget)
    assert len(used) == MIN_TEXTS
    assert max(row.characters for row in used) == 40
    assert all(row.text.startswith(f"text {row.number} ") for row in used)


def test_many_texts_are_subsampled_stratified() -> None:
    rows = rows_with_labels(900, labels=3)
    used = curve.subsample_for_curve(rows, "single_label", 300)
    assert [row.number for row in used] == sorted(row.number for row in used)
    assert np.bincount(curve.build_task_and_targets(used, "single_label")[1]).tolist() == [
        100,
        100,
        100,
    ]
    short = curve.subsample_for_curve(
        rows, "single_label", characters=sum(len(row.text) for row in rows) // 3
    )
    assert len(short) == pytest.approx(300, abs=1)
    found = curve.measure_and_extrapolate_curve(
        law_learner(np.arange(300) % 2, lambda n: 1.5 * n**-0.4),
        TWO,
        np.arange(300) % 2,
        texts=900,
        basis="linear",
    )
    assert [each.texts for each in found.gains] == [1800, 3600]
    assert "measured on 300 of the texts" in str(describe_curve_model(found))


def test_learning_curve_is_cached(cache_folder: Path) -> None:
    calls: list[int] = []

    def compute() -> MoreLabelsEstimate:
        calls.append(1)
        return MoreLabelsEstimate(code="one_label", message="", texts=3)

    first = curve.load_or_compute_estimate({"data": "a"}, compute)
    (entry,) = cache_folder.iterdir()
    os.utime(entry, (0, 0))
    assert curve.load_or_compute_estimate({"data": "a"}, compute) == first
    assert len(calls) == 1
    assert entry.stat().st_mtime > 0  # it was used
    curve.load_or_compute_estimate({"data": "b"}, compute)
    assert len(calls) == 2
    for entry in cache_folder.iterdir():
        entry.write_text("{")
    assert curve.load_or_compute_estimate({"data": "a"}, compute) == first
    assert len(calls) == 3


def test_cache_keeps_its_limit(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cache.FOLDER_LIMITS, "learning-curves", 1)
    for name in ("a", "b"):
        curve.load_or_compute_estimate(
            {"data": name}, lambda: MoreLabelsEstimate(code="one_label", message="", texts=3)
        )
    assert len(list(cache_folder.iterdir())) == 1


def test_gains_are_described_in_points() -> None:
    gains = [
        ExpectedGain(texts=2000, low=0.005, high=0.02),
        ExpectedGain(texts=4000, low=-0.0034, high=0.031),
    ]
    assert describe_gains(gains) == (
        "With twice as many labels (2,000) expect +0.5 to +2.0 points of accuracy, with four times "
        "as many (4,000) \N{MINUS SIGN}0.3 to +3.1."
    )
