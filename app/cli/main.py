"""The `loraworks` command."""

import errno
import sys
from gc import freeze
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import lora_core
from app.cli import datasets, jobs, keys, models, predictions, sweeps
from app.cli.data_checks import check
from app.cli.demo import demo
from app.cli.errors import EXIT_CODES, UNEXPECTED, CliError
from app.cli.evaluate import evaluate
from app.cli.gc import gc
from app.cli.migrate import migrate
from app.cli.models import export_model, import_model
from app.cli.options import DEFAULT_URL
from app.cli.output import plain, say
from app.cli.predict import predict
from app.cli.train import train
from app.cli.up import api, up
from app.cli.watch import watch
from app.cli.worker import worker
from app.errors import AppError, DataFolderUnusable
from lora_core.errors import LoraCoreError
from lora_core.errors.data import DataError

EPILOG = "Exit codes: " + "; ".join(f"{code} {text}" for code, text in EXIT_CODES.items()) + "."


class LoraworksGroup(TyperGroup):
    """Turns every error of a command into lines on standard error and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CliError as error:
            _leave(error.exit_code, *error.lines())
        except AppError as error:
            _leave(_exit_code(error), f"error: {error} ({error.code})")
        except LoraCoreError as error:
            status = 2 if isinstance(error, DataError) else 1
            _leave(status, f"error: {error} ({error.code})")
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output left
                raise
            name = f"{error.filename}: " if error.filename else ""
            _leave(2, f"error: {name}{error.strerror or error} (os_error)")
        except Exception as error:
            if type(error).__module__.startswith("typer"):  # its own ways to exit
                raise
            _leave(UNEXPECTED, f"error: {type(error).__name__}: {error} (unexpected)")


def _exit_code(error: AppError) -> int:
    """Of a cause that was met here and not in an answer, so that 500 means a wrong setting."""
    if error.status == 500 or isinstance(error, DataFolderUnusable):
        return 2
    return 3 if error.status < 500 else 4


def _leave(code: int, *lines: str) -> None:
    for line in lines:
        sys.stderr.write(f"{plain(line)}\n")
    raise typer.Exit(code)


app = typer.Typer(
    name="loraworks",
    cls=LoraworksGroup,
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"loraworks {lora_core.__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    url: Annotated[
        str, typer.Option("--url", envvar="LORAWORKS_URL", help="Address of the service.")
    ] = DEFAULT_URL,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            envvar="LORAWORKS_API_KEY",
            help="API key. Better in the environment, where the process list does not show it.",
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Fine-tune text classifiers with LoRA, watch them learn, and ask them.

    `loraworks up` starts the service; everything else talks to one.
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
app.command()(demo)
app.command()(gc)
datasets.app.command("check")(check)
models.app.command("export")(export_model)
models.app.command("import")(import_model)
app.add_typer(jobs.app, name="jobs", no_args_is_help=True)
app.add_typer(sweeps.app, name="sweep", no_args_is_help=True)
app.add_typer(predictions.app, name="predictions", no_args_is_help=True)
app.add_typer(models.app, name="models", no_args_is_help=True)
app.add_typer(datasets.app, name="datasets", no_args_is_help=True)
app.add_typer(keys.app, name="keys", no_args_is_help=True)


def main() -> None:
    """Entry point of the console script."""
    freeze()  # what is imported stays, and need not be searched for garbage: 20 ms of a start
    app()


if __name__ == "__main__":
    main()
