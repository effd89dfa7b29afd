"""`loraworks sweep start` and `sweep preset`: plan a sweep, start it, follow it.

The request body is a file or a preset, with the command's options applied. The options of
`loraworks train` describe the base job; `--over FIELD=VALUES` defines the search space, as
`app.sweeps.search_space` parses it.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from app.cli.errors import UsageError
from app.cli.files import reject_local_files, upload_and_replace_spec_sources
from app.cli.options import AsJson, inject_command_parameter, with_client
from app.cli.output import (
    Json,
    format_duration,
    format_percent,
    print_fields,
    print_json,
    print_line,
)
from app.cli.spec_options import (
    SPEC_OPTIONS,
    apply_options,
    check_finite,
    option_spellings,
    options_signature,
    read_json_object,
)
from app.cli.sweep_results import (
    format_trial_counts,
    print_outcome_and_require_winner,
    raise_unless_finished_with_winner,
    watch_sweep_with_hint,
)
from app.sweeps import search_space
from app.sweeps.search_space import PRESETS, PresetName
from app.sweeps.states import Objective

if TYPE_CHECKING:
    from app.cli.client import Client
    from app.sweeps.schemas import SweepPlan, SweepView


Over = Annotated[
    list[str] | None,
    typer.Option(
        "--over",
        metavar="FIELD=VALUES",
        help="Field to vary (repeatable): r=1,2,4; targets=query+value,all; or a range "
        "lr=log:1e-4..1e-2x5 (log: and the count are optional). FIELD is an option name or a spec "
        "field such as method.r.",
    ),
]


def parse_search_space(assignments: Iterable[str]) -> Json:
    """Parse the values or the range of each field. Raises `UsageError`."""
    space: Json = {}
    for assignment in assignments:
        name, equals, values = assignment.partition("=")
        if not (name and equals and values.strip()):
            raise _invalid_space(assignment, "expected FIELD=VALUES, such as r=1,2,4")
        field = resolve_field(name)
        if field in space:
            raise _invalid_space(assignment, f"{field} is given twice")
        try:
            space[field] = search_space.parse_values_or_range(field, values.strip())
        except ValueError as error:
            raise _invalid_space(assignment, str(error)) from error
    return space


def resolve_field(name: str) -> str:
    """Return the spec field for the name of an option, or for the last part of the field."""
    normalized = name.strip().lstrip("-").replace("_", "-")
    for field, flag in SPEC_OPTIONS.items():
        names = [each.lstrip("-") for each in option_spellings(flag)]
        if normalized in (*names, field.rpartition(".")[2].replace("_", "-")):
            return field
    return name.strip()


def _invalid_space(assignment: str, why: str) -> UsageError:
    return UsageError(f"--over {assignment} is invalid: {why}", "wrong_space")


SWEEP_PANEL = "Sweep"


def _option(annotation: Any, name: str, text: str, **extra: Any) -> Any:
    return Annotated[
        annotation | None, typer.Option(name, help=text, rich_help_panel=SWEEP_PANEL, **extra)
    ]


# field of the strategy → option
STRATEGY_OPTIONS: dict[str, Any] = {
    "trials": _option(
        int, "--trials", "Number of trials: random, tpe; halving: sampled instead of the grid."
    ),
    "seed": _option(int, "--search-seed", "Seed of the search: random, halving, tpe."),
    "eta": _option(int, "--eta", "halving: one in ETA trials continues. Default: 3."),
    "min_budget": _option(
        float,
        "--min-budget",
        "halving: budget of the first rung, a fraction of the steps. Default: 1/9.",
    ),
    "min_full_runs": _option(
        int, "--min-full-runs", "halving: minimum number of trials that run to the end. Default: 3."
    ),
    "validation_texts": _option(
        int, "--validation-texts", "halving: validation texts used to compare rungs."
    ),
    "batch": _option(int, "--batch", "tpe: trials proposed at a time. Default: 4."),
}
# field of the sweep → option
SWEEP_OPTIONS: dict[str, Any] = {
    "objective": _option(
        Objective,
        "--objective",
        "Validation metric to optimize. Default: accuracy; multi-label macro_f1, regression rmse, "
        "several targets skill.",
    ),
    "max_parallel_jobs": _option(
        int, "--max-parallel-jobs", "Concurrent jobs. Default: the number of devices."
    ),
    "name": _option(str, "--name", "Name of the sweep."),
    "priority": _option(int, "--priority", "Priority of its jobs, -100 to 100; higher runs first."),
}
StrategyName = Literal["grid", "random", "halving", "tpe"]
Strategy = _option(StrategyName, "--strategy", "Search strategy. Default: grid.")
_ALL_OPTIONS = {"over": Over, "strategy": Strategy, **STRATEGY_OPTIONS, **SWEEP_OPTIONS}

SweepFile = Annotated[
    Path | None,
    typer.Option(
        "--file",
        help="JSON file with the whole request, - for standard input. Options override it.",
        rich_help_panel=SWEEP_PANEL,
    ),
]
JobFile = Annotated[
    Path | None,
    typer.Option("--spec", help="JSON file with the base job. Options override it."),
]
PresetArgument = Annotated[PresetName, typer.Argument(metavar="PRESET", help="Preset: seed-grid.")]


@contextmanager
def body_from_options(file: Path | None, spec: Path | None, **values: Any) -> Iterator[Json]:
    """Yield the body from a sweep's file or a job's, with options applied.

    Raises `UsageError`.
    """
    if file and spec:
        raise UsageError("--file and --spec exclude each other", "wrong_options")
    body = read_json_object(file) if file else {"job": read_json_object(spec)} if spec else {}
    yield _apply_sweep_options(body, values)


@contextmanager
def body_from_preset(which: PresetName, **values: Any) -> Iterator[Json]:
    """Yield the body from a preset, with options applied. Raises `UsageError`."""
    yield _apply_sweep_options(deepcopy(dict(PRESETS[which])), values)


body_from_options.__signature__ = options_signature(  # type: ignore[attr-defined]
    **_ALL_OPTIONS, file=SweepFile, spec=JobFile
)
body_from_preset.__signature__ = options_signature(  # type: ignore[attr-defined]
    **_ALL_OPTIONS, which=PresetArgument
)


def _apply_sweep_options(body: Json, values: Mapping[str, Any]) -> Json:
    for part in ("job", "space", "strategy"):
        if not isinstance(body.get(part, {}), dict):
            raise UsageError(f"{part!r} in the file is not a JSON object", "malformed_json")
    body["job"] = apply_options(body.get("job", {}), values)
    body["job"].setdefault("method", {}).setdefault("type", "lora")
    if space := parse_search_space(values["over"] or ()):
        body["space"] = body.get("space", {}) | space
    if not body.get("space"):
        raise UsageError(
            "the search space is empty; add fields with --over, such as --over r=2,4,8",
            "wrong_space",
        )
    if strategy := _apply_strategy_options(body.get("strategy", {}), values):
        body["strategy"] = strategy
    body |= {name: values[name] for name in SWEEP_OPTIONS if values[name] is not None}
    check_finite(body)
    return body


def _apply_strategy_options(base_strategy: Json, values: Mapping[str, Any]) -> Json:
    """Return the file's strategy with options applied; another type starts empty.

    Raises `UsageError`.
    """
    from app.sweeps.strategies import Strategy  # not needed by any other command

    strategy_classes = {
        each.model_fields["type"].default: each for each in get_args(get_args(Strategy)[0])
    }
    strategy_type = values["strategy"]
    strategy = (
        base_strategy
        if strategy_type in (None, base_strategy.get("type"))
        else {"type": strategy_type}
    )
    chosen_type = strategy.get("type", "grid")
    for name in STRATEGY_OPTIONS:
        if values[name] is None:
            continue
        if (
            chosen_type in strategy_classes
            and name not in strategy_classes[chosen_type].model_fields
        ):
            option = option_spellings(STRATEGY_OPTIONS[name])[0]
            others = ", ".join(
                each
                for each, strategy_class in strategy_classes.items()
                if name in strategy_class.model_fields
            )
            raise UsageError(
                f"{option} needs --strategy {others}, not {chosen_type}", "wrong_options"
            )
        strategy = {**strategy, name: values[name]}
    return strategy


# Commands

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Validate and estimate without starting.", rich_help_panel=SWEEP_PANEL
    ),
]
Watch = Annotated[
    bool, typer.Option("--watch", help="Follow live until the end.", rich_help_panel=SWEEP_PANEL)
]


@with_client
@inject_command_parameter("body", body_from_options)
def start(
    client: "Client",
    body: Json,
    dry_run: DryRun = False,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Start a sweep: run one job, given by the options of `loraworks train`, in many settings."""
    _submit(client, body, dry_run=dry_run, watch=watch, as_json=as_json)


@with_client
@inject_command_parameter("body", body_from_preset)
def start_preset_sweep(
    client: "Client",
    body: Json,
    dry_run: DryRun = False,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Start a predefined sweep.

    seed-grid: the 576 trials of the "LoRA from scratch" lessons: alpha, r, targets and head with
    the settings of the preset `seed`, on imdb unless --data is given.
    """
    _submit(client, body, dry_run=dry_run, watch=watch, as_json=as_json)


def _submit(client: "Client", body: Json, *, dry_run: bool, watch: bool, as_json: bool) -> None:
    if dry_run:
        reject_local_files(body["job"])
        plan = client.preview_sweep(body)
        print_json(plan) if as_json else _print_plan(plan)
        return
    upload_and_replace_spec_sources(client, body["job"])
    sweep = client.create_sweep(body)
    if not watch:
        print_json(sweep) if as_json else _print_started(sweep)
        return
    sweep = watch_sweep_with_hint(client, sweep.id)
    if not as_json:
        print_outcome_and_require_winner(sweep)
        return
    print_json(sweep)
    raise_unless_finished_with_winner(sweep)


def _print_plan(plan: "SweepPlan") -> None:
    smallest, largest = plan.trainable_parameters
    rungs = [f"{each.trials:,} to {format_percent(each.budget)}" for each in plan.rungs]
    print_fields(
        [
            ("trials", plan.trials),
            ("reused", plan.reused or None),
            ("rungs", ", ".join(rungs) if len(rungs) > 1 else None),
            ("trainable parameters", f"{smallest:,} to {largest:,}"),
            ("concurrent jobs", plan.workers or "none: no worker is running"),
            ("estimated time", format_duration(plan.estimated_seconds)),
        ]
    )


def _print_started(sweep: "SweepView") -> None:
    print_fields(
        [("sweep", sweep.id), ("state", sweep.state), ("trials", format_trial_counts(sweep))]
    )
    print_line(f"Follow it with `loraworks sweep watch {sweep.id}`.")
