"""The `loraworks` command."""

import errno
import sys
from gc import freeze
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import lora_core
from app.cli import (
    bases,
    datasets,
    feedback,
    fetch_samples,
    jobs,
    keys,
    label_review,
    labeling,
    mlflow,
    models,
    prediction_runs,
    retraining,
    sweeps,
    webhooks,
)
from app.cli.datasets import check_dataset_or_file
from app.cli.demo import demo
from app.cli.drift import show_drift
from app.cli.errors import EXIT_CODES, EXIT_INTERNAL_ERROR, CliError
from app.cli.evaluate import evaluate
from app.cli.feedback import forget_text
from app.cli.gc import gc
from app.cli.label import label
from app.cli.migrate import migrate
from app.cli.models import export_model, import_model
from app.cli.options import DEFAULT_URL
from app.cli.output import print_line, strip_control_characters
from app.cli.predict import predict
from app.cli.train import train
from app.cli.train_from_openai import train_from_openai_file
from app.cli.up import api, up
from app.cli.watch import watch
from app.cli.worker import worker
from app.errors import AppError, DataDirectoryUnusable
from lora_core.errors import LoraCoreError
from lora_core.errors.data import DataError

EPILOG = "Exit codes: " + "; ".join(f"{code} {text}" for code, text in EXIT_CODES.items()) + "."


class ErrorReportingGroup(TyperGroup):
    """Reports every error of a command on standard error and as an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CliError as error:
            _print_and_exit(error.exit_code, *error.lines())
        except AppError as error:
            _print_and_exit(_exit_code(error), f"error: {error} ({error.code})")
        except LoraCoreError as error:
            status = 2 if isinstance(error, DataError) else 1
            _print_and_exit(status, f"error: {error} ({error.code})")
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output has exited
                raise
            name = f"{error.filename}: " if error.filename else ""
            _print_and_exit(2, f"error: {name}{error.strerror or error} (os_error)")
        except UnicodeEncodeError as error:
            near = error.object[max(error.start - 20, 0) : error.end + 20]
            _print_and_exit(
                2,
                f"error: {near!r} cannot be written as {error.encoding}; use a terminal whose "
                "encoding is UTF-8 (not_utf8)",
            )
        except Exception as error:
            if type(error).__module__.startswith("typer"):  # typer handles its own exceptions
                raise
            _print_and_exit(
                EXIT_INTERNAL_ERROR, f"error: {type(error).__name__}: {error} (unexpected)"
            )


def _exit_code(error: AppError) -> int:
    """Return the exit code of an error raised in this process: 500 means an invalid setting."""
    if error.status == 500 or isinstance(error, DataDirectoryUnusable):
        return 2
    return 3 if error.status < 500 else 4


def _print_and_exit(code: int, *lines: str) -> None:
    for line in lines:
        sys.stderr.write(f"{strip_control_characters(line)}\n")
    raise typer.Exit(code)


app = typer.Typer(
    name="loraworks",
    cls=ErrorReportingGroup,
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> None:
    if requested:
        print_line(f"loraworks {lora_core.__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    url: Annotated[
        str, typer.Option("--url", envvar="LORAWORKS_URL", help="URL of the service.")
    ] = DEFAULT_URL,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            envvar="LORAWORKS_API_KEY",
            help="API key. Prefer the environment: a process list shows options.",
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Fine-tune text classifiers with LoRA, watch the training, and run predictions.

    `loraworks up` starts the service; most other commands connect to one.
    """
    del version
    ctx.obj = (url, key)


app.command()(up)
app.command()(api)
app.command()(worker)
app.command()(migrate)
app.command()(train)
app.command()(watch)
app.command()(predict)
app.command()(evaluate)
app.command("import-openai")(train_from_openai_file)
app.command()(label)
app.command()(demo)
app.command("forget")(forget_text)
app.command()(gc)
datasets.app.command("check")(check_dataset_or_file)
datasets.app.command("suspects")(label_review.list_suspects)
datasets.app.command("correct")(label_review.correct_labels)
datasets.app.command("diff")(label_review.show_correction_diff)
models.app.command("drift")(show_drift)
models.app.command("export")(export_model)
models.app.command("import")(import_model)
app.add_typer(jobs.app, name="jobs", no_args_is_help=True)
app.add_typer(sweeps.app, name="sweep", no_args_is_help=True)
app.add_typer(prediction_runs.app, name="predictions", no_args_is_help=True)
app.add_typer(labeling.app, name="labeling", no_args_is_help=True)
app.add_typer(models.app, name="models", no_args_is_help=True)
app.add_typer(feedback.app, name="feedback", no_args_is_help=True)
app.add_typer(retraining.app, name="retraining", no_args_is_help=True)
app.add_typer(datasets.app, name="datasets", no_args_is_help=True)
app.add_typer(bases.app, name="bases", no_args_is_help=True)
app.add_typer(webhooks.app, name="webhooks", no_args_is_help=True)
app.add_typer(mlflow.app, name="mlflow", no_args_is_help=True)
app.add_typer(fetch_samples.app, name="samples", no_args_is_help=True)
app.add_typer(keys.app, name="keys", no_args_is_help=True)


def main() -> None:
    """Entry point of the console script."""
    freeze()  # exclude imported modules from garbage collection: saves 20 ms at startup
    app()


if __name__ == "__main__":
    main()
