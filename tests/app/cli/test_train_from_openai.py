"""`loraworks import-openai` against a running service, whose worker trains nothing."""

import csv
import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from app.auth.service import CreatedKey
from app.cli import external_model_comparison, train_from_openai
from app.cli.client import Client, PredictResponse
from app.cli.errors import UsageError
from app.cli.external_model_comparison import (
    AnswerFile,
    OldAnswersToUnseenTexts,
    OldModelAnswer,
    OldModelComparison,
    ProportionWithInterval,
)
from app.jobs.results.comparison import PairedAccuracyComparison
from app.main import create_app
from app.openai import ids
from app.resources import Resources
from app.serving.schemas import LabelScore
from app.settings import Settings
from lora_core.confidence_intervals import wilson_interval
from lora_core.data.load import load_splits
from lora_core.data.split import Splits
from lora_core.specs.data import DataSpec
from lora_core.specs.task import MultiLabelSpec
from tests.app.cli.conftest import FakeWorker, Run, answer, serving
from tests.app.cli.versions import add_version
from tests.tiny_artifact import make_artifact

SYSTEM = "You judge films."
QUESTION = "Is this review good or bad?"
Row = dict[str, Any]


def row(text: str, answer_: str, /, **fields: Any) -> Row:
    """A row in chat form."""
    return {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"{QUESTION} {text}"},
            {"role": "assistant", "content": answer_},
        ],
        **fields,
    }


def write(file: Path, rows: list[Row]) -> Path:
    file.write_text("".join(f"{json.dumps(each)}\n" for each in rows), encoding="utf-8")
    return file


# No word is at the beginning or the end of all texts, so nothing of them is left out.
TEXTS = [f"{'ABC'[i % 3]} is film number {i}" for i in range(60)]
REVIEWS = [(text, ("bad", "good")[i % 2]) for i, text in enumerate(TEXTS[:40])]
FRESH = [(text, ("bad", "good")[i % 2]) for i, text in enumerate(TEXTS[40:])]


@pytest.fixture
def training_file(tmp_path: Path) -> Path:
    return write(tmp_path / "Films.jsonl", [row(*review) for review in REVIEWS])


@pytest.fixture
def splits(training_file: Path) -> Splits:
    """The splits that a job with default settings trains on."""
    return load_splits(DataSpec(source=str(training_file)))


@pytest.fixture
def fresh_answers(tmp_path: Path) -> Path:
    """Right answers of the old model, for texts that are not in the training file."""
    rows = [row(text, label, label=label) for text, label in FRESH]
    return write(tmp_path / "answers.jsonl", rows)


@pytest.fixture
def trains(worker: FakeWorker, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Finish the next job in the background with a model that answers `good` to everything."""
    threads: list[threading.Thread] = []

    def work(folder: Path) -> None:
        worker.succeed(worker.claim(), folder, register_as="films")

    def start() -> None:
        folder = tmp_path / f"made-{len(threads)}"
        threads.append(threading.Thread(target=work, args=[folder]))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join()


def test_file_becomes_a_model_that_openai_clients_can_call(
    cli: Run, trains: Callable[[], None], training_file: Path
) -> None:
    trains()
    result = cli("import-openai", str(training_file))
    assert result.exit_code == 0, result.output
    assert "films:1" in result.stdout
    assert "bad 20, good 20" in result.stdout
    assert repr(QUESTION) in result.stdout, "what is left out of the texts is shown"
    assert "(few_rows)" in result.stdout
    assert "Registered films:1." in result.stdout
    assert "(auto): succeeded" in result.stderr
    assert '/openai/v1", api_key=' in result.stdout
    assert 'model="ft:minilm-l6:loraworks:films:' in result.stdout
    assert "same answer" not in result.stdout


def test_json_has_what_a_script_needs(
    cli: Run, url: str, trains: Callable[[], None], training_file: Path
) -> None:
    trains()
    made = answer(cli("import-openai", str(training_file), "--name", "My Films", "--json"))
    assert made["base_url"] == f"{url}/openai/v1"
    job = made["job"]
    assert job["register_as"] == "my-films"
    assert job["spec"]["data"]["source"] == "my-films:1"
    parsed = ids.job_id_in_model_name(made["openai_model"])
    assert str(parsed) == job["id"]
    assert (made["comparison"], made["out"]) == (None, None)


def test_models_are_compared_on_texts_that_the_new_one_is_not_trained_on(
    cli: Run, trains: Callable[[], None], training_file: Path, splits: Splits, tmp_path: Path
) -> None:
    rows = [row(*review) for review in REVIEWS]  # the old model is right for all of them
    rows += [row(text, "neutral", label=label) for text, label in FRESH]
    rows.append(rows[-1])
    answers, out = write(tmp_path / "answers.jsonl", rows), tmp_path / "differing.csv"
    trains()
    made = answer(
        cli(
            "import-openai", str(training_file), "--answers", str(answers),
            "--out", str(out), "--json",
        )
    )  # fmt: skip
    comparison = made["comparison"]
    held_out = len(splits.test)
    texts = held_out + len(FRESH)
    assert held_out == 8
    assert comparison["texts"] == texts
    assert comparison["left_out"] == {"trained_on": len(REVIEWS) - held_out, "repeated": 1}
    assert comparison["labels_from_training_data"] == held_out
    assert comparison["unknown_answers"] == {"neutral": len(FRESH)}
    held_out_good = sum(splits.labels[each.label] == "good" for each in splits.test)
    low, high = wilson_interval(held_out / texts, texts)
    assert comparison["old_accuracy"] == {
        "share": held_out / texts, "low": low, "high": high, "texts": texts,
    }  # fmt: skip
    assert comparison["new_accuracy"]["share"] == 0.5  # it always answers `good`
    assert comparison["agreement"]["share"] == held_out_good / texts
    assert comparison["difference"]["only_new"] == len(FRESH) // 2
    assert comparison["difference"]["only_old"] == held_out - held_out_good
    with out.open(newline="") as lines:
        differing = list(csv.DictReader(lines))
    assert len(differing) == texts - held_out_good
    assert {each["new"] for each in differing} == {"good"}
    assert len(comparison["differing"]) == external_model_comparison.MAX_SHOWN_ROWS


def test_comparison_is_shown_side_by_side(
    cli: Run, trains: Callable[[], None], training_file: Path, tmp_path: Path
) -> None:
    rows = [row(*review) for review in REVIEWS]
    rows += [row(text, "neutral", expected=label) for text, label in FRESH]
    answers = write(tmp_path / "answers.jsonl", rows)
    trains()
    result = cli("import-openai", str(training_file), "--answers", str(answers))
    assert result.exit_code == 0, result.output
    for expected in (
        "Both models on the same 28 texts, on which films:1 is not trained:",
        "old model correct",
        "films:1 correct",
        "McNemar test p =",
        "With so few texts the difference is uncertain by ±",
        "Different answers (10 of 24):",
    ):
        assert expected in result.stdout
    assert "20 old answers are no label of the training data" in result.stderr
    assert "'neutral' (20)" in result.stderr
    assert "8 true labels come from the training file" in result.stderr
    assert "32 texts were left out" in result.stderr


def test_without_true_labels_only_the_agreement_is_known(
    cli: Run, trains: Callable[[], None], training_file: Path, tmp_path: Path
) -> None:
    answers = write(tmp_path / "answers.jsonl", [row(*each) for each in FRESH])
    trains()
    result = cli("import-openai", str(training_file), "--answers", str(answers))
    assert result.exit_code == 0, result.output
    assert "No true label is known for these texts" in result.stdout
    assert "correct" not in result.stdout.partition("Both models")[2]
    assert re.search(r"same answer +50.0%", result.stdout)


def test_validation_file_is_the_validation_split(
    cli: Run, trains: Callable[[], None], training_file: Path, tmp_path: Path
) -> None:
    validation = write(tmp_path / "valid.jsonl", [row(*each) for each in FRESH])
    rows = [row(text, label, label=label) for text, label in FRESH]
    answers = write(tmp_path / "answers.jsonl", [*rows, row("a new one", "good", label="good")])
    trains()
    made = answer(
        cli(
            "import-openai", str(training_file), "--validation", str(validation),
            "--answers", str(answers), "--json",
        )
    )  # fmt: skip
    source = made["job"]["spec"]["data"]["source"]
    assert source == {"train": "films:1", "validation": "valid:1"}
    assert made["comparison"]["texts"] == 1, "the validation split selects the model"
    assert made["comparison"]["left_out"]["trained_on"] == len(FRESH)


def test_prompts_with_completions_and_json_answers(
    cli: Run, trains: Callable[[], None], tmp_path: Path
) -> None:
    def pair(text: str, mood: str, /, **fields: Any) -> Row:
        completion = json.dumps({"mood": mood})
        return {"prompt": f"{text}\n\n###\n\n", "completion": f" {completion}", **fields}

    file = write(tmp_path / "films.jsonl", [pair(*each) for each in REVIEWS])
    rows = [pair(text, label, label=label) for text, label in FRESH]
    answers = write(tmp_path / "answers.jsonl", rows)
    trains()
    made = answer(cli("import-openai", str(file), "--answers", str(answers), "--json"))
    assert made["comparison"]["old_accuracy"]["share"] == 1
    assert made["comparison"]["differing"][0]["text"] == TEXTS[40]


def test_models_that_exist_are_compared_without_a_training(
    cli: Run, trains: Callable[[], None], training_file: Path, fresh_answers: Path
) -> None:
    trains()
    made = answer(cli("import-openai", str(training_file), "--json"))
    for model in ("films:1", made["openai_model"]):
        again = answer(
            cli("import-openai", "--model", model, "--answers", str(fresh_answers), "--json")
        )
        assert again["model"] == "films:1"
        assert again["comparison"]["new_accuracy"]["share"] == 0.5
    assert len(answer(cli("jobs", "list", "--json"))) == 1


def test_texts_of_the_base_count_as_training_texts(
    cli: Run, trains: Callable[[], None], training_file: Path, fresh_answers: Path, tmp_path: Path
) -> None:
    trains()
    answer(cli("import-openai", str(training_file), "--json"))
    more = write(tmp_path / "more.jsonl", [row(*each) for each in FRESH])
    answers = write(tmp_path / "old.jsonl", [row(text, "good") for text in TEXTS])
    trained = [
        load_splits(DataSpec(source=str(file), prompt_format=None))
        for file in (training_file, more)
    ]
    held_out = sum(len(each.test) for each in trained)
    options = ("--base", "films:1", "--method", "lora", "--answers", str(answers), "--json")
    trains()
    made = answer(cli("import-openai", str(more), *options))
    assert made["comparison"]["left_out"]["trained_on"] == len(TEXTS) - held_out


def test_one_dataset_may_be_two_splits(cli: Run, url: str, training_file: Path) -> None:
    ref = answer(cli("datasets", "upload", str(training_file), "--json"))["ref"]
    spec = {"data": {"source": {"train": ref, "test": ref}}, "task": {"type": "single_label"}}
    with Client(url) as client:
        loaded = train_from_openai._load_splits(client, spec)
    assert len(loaded.test) == len(loaded.train) + len(loaded.validation)


def test_models_that_were_not_trained_here_cannot_be_compared(
    cli: Run, resources: Resources, fresh_answers: Path, tmp_path: Path
) -> None:
    add_version(resources, make_artifact(tmp_path / "made"), tmp_path / "copy")
    refused = cli("import-openai", "--model", "sentiment:1", "--answers", str(fresh_answers))
    assert (refused.exit_code, "(no_training_job)" in refused.stderr) == (2, True), refused.output


SCOPES = ("datasets:read", "datasets:write", "jobs:read", "jobs:write", "models:admin")


@pytest.mark.parametrize("scopes", [SCOPES, (*SCOPES, "predict")], ids=["training", "answers"])
def test_documented_scopes_are_enough(
    scopes: tuple[str, ...],
    run: Run,
    auth_settings: Settings,
    new_key: Callable[..., CreatedKey],
    trains: Callable[[], None],
    training_file: Path,
    fresh_answers: Path,
) -> None:
    guide = Path(__file__).parents[3] / "docs/how-to/move-in-from-openai.md"
    lines = guide.read_text("utf-8").splitlines()
    (line,) = [each for each in lines if "| `import-openai`" in each]
    assert set(re.findall(r"`(\w+:?\w*)`", line)) == {*SCOPES, "predict", "models:read"}
    answers = ("--answers", str(fresh_answers)) if "predict" in scopes else ()
    app = create_app(auth_settings.model_copy(update={"log_level": "ERROR"}))
    with serving(app) as url:
        trains()
        result = run(
            "import-openai", str(training_file), *answers,
            LORAWORKS_URL=url, LORAWORKS_API_KEY=new_key(*scopes).text,
        )  # fmt: skip
    assert result.exit_code == 0, result.output


def test_failed_training_exits_with_1(cli: Run, worker: FakeWorker, training_file: Path) -> None:
    thread = threading.Thread(target=lambda: worker.fail(worker.claim()))
    thread.start()
    result = cli("import-openai", str(training_file))
    thread.join()
    assert (result.exit_code, "(one_class)" in result.stderr) == (1, True), result.output


# -- Bad input, none of which starts a job --------------------------------------------------------


def refused(cli: Run, *arguments: str) -> tuple[int, str]:
    result = cli("import-openai", *arguments)
    assert answer(cli("jobs", "list", "--json")) == []
    assert result.exit_code != 0, result.output
    return result.exit_code, result.stderr


TALK = [row(f"film {i}", f"What a film number {i}, with a long story about it.") for i in range(12)]


@pytest.mark.parametrize(
    ("content", "status", "code", "said"),
    [
        ("", 2, "too_few_rows", "has 0 rows"),
        ("not JSON\n", 2, "malformed_row", "row 1"),
        ('{"text": "a", "label": "b"}\n', 2, "malformed_row", "'messages'"),
        ('{"messages": []}\n', 2, "malformed_row", "row 1"),
        ("".join(f"{json.dumps(row(*each))}\n" for each in REVIEWS[:9]), 2, "too_few_rows", "9"),
        ("".join(f"{json.dumps(each)}\n" for each in TALK), 3, "free_text_answers", "12 of 12"),
        (
            "".join(f"{json.dumps(row(text, 'good'))}\n" for text, _ in REVIEWS),
            3, "one_class", "good",
        ),
    ],
)  # fmt: skip
def test_unusable_training_file(
    cli: Run, tmp_path: Path, content: str, status: int, code: str, said: str
) -> None:
    file = tmp_path / "films.jsonl"
    file.write_text(content)
    exit_code, stderr = refused(cli, str(file))
    assert (exit_code, f"({code})" in stderr, said in stderr) == (status, True, True), stderr


@pytest.mark.parametrize(
    ("rows", "code", "said"),
    [
        ([], "empty_data", "answers.jsonl has no rows"),
        ([{"text": "a"}], "malformed_row", "row 1"),
        ([row("", "good"), row("new", "good")], "empty_text", "first: 1"),
        ([row("new", "I like it.")], "answers_are_no_labels", "'I like it.', in row 1"),
        ([row("new", "good", label="superb")], "unknown_label", "'superb'"),
        ([row("new", "good", label=1)], "malformed_row", "true label must be one string"),
        ([row("new", "good", label="good", expected="bad")], "malformed_row", "'expected'"),
    ],
)
def test_unusable_answers(
    cli: Run, training_file: Path, tmp_path: Path, rows: list[Row], code: str, said: str
) -> None:
    answers = write(tmp_path / "answers.jsonl", rows)
    exit_code, stderr = refused(cli, str(training_file), "--answers", str(answers))
    assert (exit_code, f"({code})" in stderr, said in stderr) == (2, True, True), stderr


def test_answers_for_training_texts_only(
    cli: Run, training_file: Path, splits: Splits, tmp_path: Path
) -> None:
    rows = [row(each.text, "good") for each in (*splits.train, *splits.validation)]
    answers = write(tmp_path / "answers.jsonl", rows)
    exit_code, stderr = refused(cli, str(training_file), "--answers", str(answers))
    assert (exit_code, "(only_training_texts)" in stderr) == (2, True), stderr


def test_options_that_do_not_belong_together(
    cli: Run, training_file: Path, fresh_answers: Path, tmp_path: Path
) -> None:
    file, answers, taken = str(training_file), str(fresh_answers), tmp_path / "taken.csv"
    taken.touch()
    for arguments, code in (
        ((), "wrong_usage"),
        (("--answers", answers), "wrong_usage"),
        (("--model", "films:1"), "wrong_usage"),
        ((file, "--model", "films:1", "--answers", answers), "wrong_usage"),
        (("--model", "films:1", "--answers", answers, "--name", "x"), "wrong_usage"),
        ((file, "--out", str(tmp_path / "x.csv")), "wrong_options"),
        ((file, "--answers", answers, "--out", str(tmp_path / "x.txt")), "out_format"),
        ((file, "--answers", answers, "--output", str(taken)), "output_exists"),
    ):
        exit_code, stderr = refused(cli, *arguments)
        assert (exit_code, f"({code})" in stderr) == (2, True), (arguments, stderr)


# -- What is said about the difference ------------------------------------------------------------


@pytest.mark.parametrize(
    ("only_new", "only_old", "texts", "headline", "uncertain"),
    [
        (3, 1, 20, "within noise", True),
        (20, 3, 100, "is better", True),
        (3, 20, 100, "is worse", True),
        (40, 10, 2_000, "is better", False),
        (0, 0, 2_000, "within noise", False),
    ],
)
def test_conclusion_follows_from_the_paired_test(
    only_new: int, only_old: int, texts: int, headline: str, uncertain: bool
) -> None:
    correct = texts - only_new - only_old
    labels = ["good"] * texts
    new = ["good"] * (correct + only_new) + ["bad"] * only_old
    old = ["good"] * correct + ["bad"] * only_new + ["good"] * only_old
    comparison = compared(old, new, labels)
    assert isinstance(comparison.difference, PairedAccuracyComparison)
    assert (comparison.difference.only_a, comparison.difference.only_b) == (only_new, only_old)
    sentences = external_model_comparison.describe_difference(comparison.difference)
    assert headline in sentences[0]
    assert ("so few texts" in sentences[-1]) is uncertain


def compared(old: list[str], new: list[str], labels: Sequence[str | None]) -> OldModelComparison:
    answers = [
        OldModelAnswer(number, f"text {number}", each, label)
        for number, (each, label) in enumerate(zip(old, labels, strict=True), 1)
    ]
    scores = [[LabelScore(label=each, score=0.9)] for each in new]
    return external_model_comparison.compare_with_old_model(
        "films:1",
        OldAnswersToUnseenTexts(
            answers, trained_on=0, repeated=0, labels_from_training_data=0, unknown={}
        ),
        PredictResponse(scores, "films:1", 0),
    )


def test_accuracies_count_labeled_texts_only() -> None:
    comparison = compared(["a", "a", "b"], ["a", "b", "b"], ["a", None, "a"])
    assert comparison.agreement == ProportionWithInterval(
        2 / 3, *wilson_interval(2 / 3, 3), texts=3
    )
    assert comparison.old_accuracy == ProportionWithInterval(
        1 / 2, *wilson_interval(1 / 2, 2), texts=2
    )
    assert comparison.new_accuracy == comparison.old_accuracy


def test_csv_has_no_formulas() -> None:
    comparison = compared(["=1+1"], ["good"], [None])
    (line,) = csv.DictReader(
        external_model_comparison.format_differing_texts_as_csv(comparison.differing).splitlines()
    )
    assert line == {
        "row": "1", "text": "text 1", "old": "'=1+1", "new": "good", "score": "0.9000",
        "true_label": "",
    }  # fmt: skip


def test_selection_of_no_rows_is_refused(splits: Splits) -> None:
    with pytest.raises(UsageError, match="trained on all"):
        external_model_comparison.select_answers_to_unseen_texts(
            AnswerFile("answers.jsonl", []), splits
        )


SETS = [(text, sorted({"ab"[i % 2], "bc"[i // 2 % 2]})) for i, text in enumerate(TEXTS)]


@pytest.fixture
def label_set_splits(tmp_path: Path) -> Splits:
    file = write(tmp_path / "sets.jsonl", [row(text, json.dumps(names)) for text, names in SETS])
    return load_splits(DataSpec(source=str(file)), MultiLabelSpec())


def select_sets(tmp_path: Path, splits: Splits, *rows: Row) -> OldAnswersToUnseenTexts:
    file = external_model_comparison.read_answer_file(write(tmp_path / "answers.jsonl", [*rows]))
    return external_model_comparison.select_answers_to_unseen_texts(
        file, splits, task_type="multi_label"
    )


def test_lists_of_labels_are_compared_as_sets(tmp_path: Path, label_set_splits: Splits) -> None:
    old = select_sets(
        tmp_path,
        label_set_splits,
        row("new one", '["b", "a"]', label=["a", "b"]),
        row("new two", "[]", label='["c"]'),
        row("new three", '["c", "d"]', label=["c"]),
        row("new four", "c", label=["c"]),
    )
    assert [each.label for each in old.answers] == ['["a", "b"]', "[]", '["c", "d"]', "c"]
    assert old.unknown == {'["c", "d"]': 1, "c": 1}
    thresholds = {"a": 0.5, "b": 0.3, "c": 0.9}
    scores = [(0.9, 0.4, 0.1), (0.1, 0.1, 0.95), (0.1, 0.2, 0.95), (0.6, 0.1, 0.1)]
    predicted = [
        [LabelScore(label=name, score=score) for name, score in zip("abc", of_text, strict=True)]
        for of_text in scores
    ]
    found = external_model_comparison.compare_with_old_model(
        "m:1", old, PredictResponse(predicted, "m:1", 0), thresholds
    )
    assert (found.agreement.share, found.agreement.texts) == (0.25, 4)
    assert found.old_accuracy is not None
    assert found.new_accuracy is not None
    assert (found.old_accuracy.share, found.new_accuracy.share) == (0.25, 0.75)
    assert [each.new for each in found.differing] == ['["c"]', '["c"]', '["a"]']
    assert found.differing[2].score == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("answer_", "label", "code"),
    [
        ('["a"]', ["z"], "unknown_label"),
        ('["a"]', 3, "malformed_row"),
        ("a", None, "answers_are_no_labels"),
    ],
)
def test_unusable_lists_of_labels(
    tmp_path: Path, label_set_splits: Splits, answer_: str, label: Any, code: str
) -> None:
    with pytest.raises(UsageError) as error:
        select_sets(tmp_path, label_set_splits, row("new one", answer_, label=label))
    assert error.value.code == code


def test_answers_of_a_regression_are_refused(splits: Splits, fresh_answers: Path) -> None:
    file = external_model_comparison.read_answer_file(fresh_answers)
    with pytest.raises(UsageError, match="the model has the task regression") as error:
        external_model_comparison.select_answers_to_unseen_texts(
            file, splits, task_type="regression"
        )
    assert error.value.code == "answers_not_comparable"


def test_file_of_label_sets_is_uploaded_as_such(
    cli: Run, trains: Callable[[], None], tmp_path: Path
) -> None:
    file = write(tmp_path / "sets.jsonl", [row(text, json.dumps(names)) for text, names in SETS])
    trains()
    made = answer(cli("import-openai", str(file), "--task", "multi_label", "--json"))
    assert made["job"]["spec"]["task"]["type"] == "multi_label"
