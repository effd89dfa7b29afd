"""Report of a sweep: tables, sentences, and one HTML page without external resources."""

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.charts import figures
from app.charts.formatting import (
    STATE_ORDER,
    field_labels,
    format_difference,
    format_interval,
    format_number,
    format_percent,
    format_score,
    format_setting_value,
    format_trial_settings,
    is_numeric_field,
)
from app.charts.style import (
    CHEAPEST_MARK,
    WINNER_MARK,
    format_trial_objective,
    objective_label,
    trial_mark,
)
from app.jobs.results.comparison import PairedComparison
from app.sweeps.snapshot import (
    FINAL_TRIAL_STATES,
    OPEN_SWEEP_STATES,
    SplitScore,
    SweepSnapshot,
    TrialSnapshot,
    WinnerAndCheapest,
    select_winner_and_cheapest,
)
from lora_core.data.data_report import format_count
from lora_core.tasks.metric_info import METRICS

# Tables

_EMPTY_CELL = "–"  # noqa: RUF001


@dataclass(frozen=True)
class ReportTable:
    """A table as text. The first column names the row."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[bool]  # by column: whether it holds numbers
    marked: Sequence[bool]  # by row: whether it is highlighted


def winner_and_cheapest_table(
    snapshot: SweepSnapshot, selection: WinnerAndCheapest | None
) -> ReportTable | None:
    """Return the winner side by side with the cheapest trial within noise of it."""
    if selection is None:
        return None
    by_number = {trial.number: trial for trial in snapshot.trials}
    names = [WINNER_MARK.name]
    trials = [by_number[selection.winner]]
    validation, test = [selection.winner_validation], [selection.winner_test]
    if selection.cheapest != selection.winner:
        names.append(CHEAPEST_MARK.name)
        trials.append(by_number[selection.cheapest])
        validation.append(selection.cheapest_validation)
        test.append(selection.cheapest_test)
    labels, label = field_labels(snapshot.fields), METRICS[snapshot.main_metric].label
    rows = [
        ["trial", *(str(trial.number) for trial in trials)],
        *(
            [labels[field], *(format_setting_value(trial.settings.get(field)) for trial in trials)]
            for field in snapshot.fields
        ),
        ["trainable parameters", *(f"{trial.trainable_parameters:,}" for trial in trials)],
        ["seconds", *(_seconds_text(trial) for trial in trials)],
        *(
            [f"{split} {label}{_first_texts(scores[0])}", *map(_short_interval, scores)]
            for split, scores in (("validation", validation), ("test", test))
        ),
    ]
    return ReportTable(["", *names], rows, [False, *(True for _ in names)], [False] * len(rows))


def trials_in_display_order(snapshot: SweepSnapshot) -> list[TrialSnapshot]:
    """Return the complete trials, the best first, followed by all others by number."""
    ranked = {trial.number for trial in snapshot.ranked}
    others = (trial for trial in snapshot.trials if trial.number not in ranked)
    return [*snapshot.ranked, *others]


def trial_table(
    snapshot: SweepSnapshot,
    selection: WinnerAndCheapest | None,
    trials: Sequence[TrialSnapshot] | None = None,
) -> ReportTable:
    """Return a row per trial; `trials` limits the rows, but the columns are always those of all."""
    shown = trials_in_display_order(snapshot) if trials is None else trials
    labels = field_labels(snapshot.fields)
    has_partial = any(0 < trial.budget < 1 for trial in snapshot.trials)
    metrics = [
        (split, name)
        for split in ("validation", "test")
        for name in dict.fromkeys((snapshot.objective, snapshot.main_metric))
        if any(trial.metric(split, name) is not None for trial in snapshot.trials)
    ]
    has_errors = any(trial.error for trial in snapshot.trials)
    columns = [
        ("trial", True),
        ("", False),
        *((labels[field], is_numeric_field(snapshot.trials, field)) for field in snapshot.fields),
        *((f"{split} {METRICS[name].label}", True) for split, name in metrics),
        ("trainable parameters", True),
        ("seconds", True),
        ("state", False),
        *([("budget", True)] if has_partial else []),
        *([("error", False)] if has_errors else []),
    ]
    rows = [
        [
            str(trial.number),
            _mark_name(trial, selection),
            *(format_setting_value(trial.settings.get(field)) for field in snapshot.fields),
            *(_metric_text(trial, split, name) for split, name in metrics),
            f"{trial.trainable_parameters:,}",
            _seconds_text(trial),
            trial.state,
            *([format_percent(trial.budget)] if has_partial else []),
            *([trial.error or ""] if has_errors else []),
        ]
        for trial in shown
    ]
    highlighted = {selection.winner, selection.cheapest} if selection else set()
    return ReportTable(
        [name for name, _ in columns],
        rows,
        [is_number for _, is_number in columns],
        [trial.number in highlighted for trial in shown],
    )


def _mark_name(trial: TrialSnapshot, selection: WinnerAndCheapest | None) -> str:
    if selection is None or trial.number not in selection.within_noise:
        return ""
    return trial_mark(trial, selection).name


def _metric_text(trial: TrialSnapshot, split: str, name: str) -> str:
    value = trial.metric(split, name)
    return _EMPTY_CELL if value is None else format_score(name, value)


def _seconds_text(trial: TrialSnapshot) -> str:
    return _EMPTY_CELL if trial.seconds is None else format_number(trial.seconds, digits=3)


def _first_texts(score: SplitScore | None) -> str:
    if score is None or not score.is_capped:
        return ""
    return f" of the first {format_count(score.texts, 'text')}"


def _short_interval(score: SplitScore | None) -> str:
    if score is None:
        return _EMPTY_CELL
    interval = format_interval(score.metric, score.low, score.high)
    return f"{format_score(score.metric, score.value)} ({interval})"


# Sentences


def sweep_description(snapshot: SweepSnapshot) -> str:
    """Describe the strategy, the fields and the objective."""
    fields = ", ".join(field_labels(snapshot.fields).values())
    return f"Sweep ({snapshot.strategy}) over {fields}, ranked by {objective_label(snapshot)}."


def progress_sentence(snapshot: SweepSnapshot) -> str:
    """Describe how far the sweep is."""
    trials = snapshot.trials
    if snapshot.state in OPEN_SWEEP_STATES:
        ended = sum(trial.state in FINAL_TRIAL_STATES for trial in trials)
        return f"Not finished: {ended} of {len(trials)} trials have ended. Results may change."
    counts = Counter(trial.state for trial in trials)
    states = ", ".join(f"{counts[state]} {state}" for state in STATE_ORDER if counts[state])
    partial = sum(
        trial.state == "succeeded" and not trial.succeeded_at_full_budget for trial in trials
    )
    suffix = f"; {partial} of those that succeeded did not run with the full budget"
    return f"{format_count(len(trials), 'trial')}: {states or 'none'}{suffix if partial else ''}."


def describe_results(snapshot: SweepSnapshot, selection: WinnerAndCheapest | None) -> list[str]:
    """Describe the winner, its test results, the trials within noise and the cheapest of them."""
    if selection is None:
        return ["No trial is complete yet, so there is nothing to compare."]
    by_number = {trial.number: trial for trial in snapshot.trials}
    winner, cheapest = by_number[selection.winner], by_number[selection.cheapest]
    sentences = [
        _winner_sentence(snapshot, winner, selection),
        *_test_sentences(snapshot, selection),
        _within_noise_sentence(snapshot, selection),
    ]
    if selection.cheapest != selection.winner:
        sentences.append(_cheapest_sentence(snapshot, winner, cheapest, selection))
    elif len(selection.within_noise) > 1:
        sentences.append("None of them has fewer trainable parameters than the winner.")
    return sentences


def metric_with_interval(score: SplitScore) -> str:
    """Format a metric with its 95% confidence interval."""
    unit = "%" if METRICS[score.metric].is_share else ""
    interval = format_interval(score.metric, score.low, score.high)
    return f"{format_score(score.metric, score.value)} (95% interval {interval}{unit})"


def _winner_sentence(
    snapshot: SweepSnapshot, winner: TrialSnapshot, selection: WinnerAndCheapest
) -> str:
    score = selection.winner_validation
    texts = f" on {format_count(score.texts, 'text')}" if score and not score.is_capped else ""
    return (
        f"Trial {winner.number} has the best {objective_label(snapshot)}, "
        f"{format_trial_objective(snapshot, winner)}{texts}: "
        f"{', '.join(format_trial_settings(snapshot, winner))}."
    )


def _test_sentences(snapshot: SweepSnapshot, selection: WinnerAndCheapest) -> list[str]:
    score = selection.winner_test
    if score is None:
        return []
    objective = ""
    if snapshot.objective != score.metric and score.objective is not None:
        value = format_score(snapshot.objective, score.objective)
        label = METRICS[snapshot.objective].label
        every = f", and its {label} on all test texts" if score.is_capped else f", its {label}"
        objective = f"{every} {value}"
    first = "the first " if score.is_capped else ""
    return [
        f"On {first}{format_count(score.texts, 'test text')}, which were not used for the "
        f"selection, its {METRICS[score.metric].label} is {metric_with_interval(score)}{objective}."
    ]


def _within_noise_sentence(snapshot: SweepSnapshot, selection: WinnerAndCheapest) -> str:
    others = len(selection.within_noise) - 1
    if selection.compared == 1:
        return "No other trial was evaluated on the same validation texts."
    test, significant, within = "paired bootstrap over the same validation texts", "", ""
    if snapshot.main_metric == "accuracy":
        test = "exact McNemar test of the accuracy on the same validation texts"
        significant, within = ", p < 0.05", ", p ≥ 0.05"
    if others == 0:
        return f"No other trial is within noise of the winner ({test}{significant})."
    compared = format_count(selection.compared - 1, "other trial")
    verb = "is" if others == 1 else "are"
    return f"{others} of {compared} {verb} within noise of the winner ({test}{within})."


def _cheapest_sentence(
    snapshot: SweepSnapshot,
    winner: TrialSnapshot,
    cheapest: TrialSnapshot,
    selection: WinnerAndCheapest,
) -> str:
    comparisons = (("validation", selection.validation), ("test", selection.test))
    differences = [
        _difference_text(comparison, snapshot.main_metric, split)
        for split, comparison in comparisons
        if comparison
    ]
    settings = ", ".join(format_trial_settings(snapshot, cheapest))
    return (
        f"The cheapest within noise is trial {cheapest.number} ({settings}) with "
        f"{cheapest.trainable_parameters:,} trainable parameters instead of "
        f"{winner.trainable_parameters:,}. Its {METRICS[snapshot.main_metric].label} is "
        f"{' and '.join(differences)}."
    )


def _difference_text(comparison: PairedComparison, metric: str, split: str) -> str:
    # The sign is inverted: the value of the cheapest trial minus that of the winner.
    low, high = (format_difference(metric, -bound) for bound in (comparison.high, comparison.low))
    size = format_difference(metric, abs(comparison.difference)).removeprefix("+")
    unit = " points" if METRICS[metric].is_share else ""
    way = "lower" if comparison.difference > 0 else "higher"
    same = comparison.difference == 0
    text = f"the same on {split}" if same else f"{size}{unit} {way} on {split}"
    return f"{text} (95% interval {low} to {high})"


# HTML page

# Header for the route that serves the page. Scripts run in a sandbox, with no access to the
# service; the page's own policy forbids to load anything.
CONTENT_SECURITY_POLICY = "sandbox allow-scripts allow-downloads; frame-ancestors 'none'"
TEMPLATE_DIR = Path(__file__).with_name("page")


def render_report(snapshot: SweepSnapshot) -> str:
    """Return the page. All text from users is escaped, never markup or code."""
    import jinja2
    from plotly.offline import get_plotlyjs

    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE_DIR),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.policies["json.dumps_kwargs"] = {"allow_nan": False}
    selection = select_winner_and_cheapest(snapshot)
    charts = figures.sweep_charts(snapshot)
    script = (TEMPLATE_DIR / "report.js").read_text(encoding="utf-8")
    scripts = [get_plotlyjs(), script] if charts else []
    return templates.get_template("report.html").render(
        snapshot=snapshot,
        description=sweep_description(snapshot),
        running=snapshot.state in OPEN_SWEEP_STATES,
        progress=progress_sentence(snapshot),
        findings=describe_results(snapshot, selection),
        winner_and_cheapest_table=winner_and_cheapest_table(snapshot, selection),
        charts=charts,
        figures=[chart.figure.to_dict() for chart in charts],
        trial_table=trial_table(snapshot, selection),
        style=(TEMPLATE_DIR / "report.css").read_text(encoding="utf-8"),
        scripts=scripts,
        policy=_page_security_policy(scripts),
    )


def _page_security_policy(scripts: list[str]) -> str:
    """Allow only these scripts and nothing external, whatever a name may contain."""
    hashes = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in scripts]
    allowed = " ".join(f"'sha256-{each}'" for each in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"
    )
