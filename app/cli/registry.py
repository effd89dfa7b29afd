"""`loraworks models …`"""

from typing import Annotated

import typer

from app.cli.client import Client
from app.cli.errors import Misuse
from app.cli.options import AsJson, JobId, Limit, connected
from app.cli.output import as_json as print_json
from app.cli.output import facts, moment, percent, say, table

app = typer.Typer(help="Names, versions and aliases of trained models.")

PRODUCTION = "production"  # what a bare name means

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")]
VersionRef = Annotated[
    str, typer.Argument(metavar="NAME:VERSION", help="A version, such as sentiment:3.")
]
Ref = Annotated[
    str, typer.Argument(metavar="NAME[:VERSION]", help="A model, or one version of it.")
]
Alias = Annotated[str, typer.Option("--alias", help="The name that moves.")]


def split_ref(ref: str) -> tuple[str, int | None]:
    """`sentiment:3` to its name and number, `sentiment` to its name. Raises `Misuse`."""
    name, colon, number = ref.partition(":")
    if colon and not (number.isascii() and number.isdigit()):
        raise Misuse(f"{ref!r} is not a version; write it like sentiment:3", "invalid_model_ref")
    return name, int(number) if colon else None


@app.command("list")
@connected
def list_models(client: Client, limit: Limit = 100, as_json: AsJson = False) -> None:
    """All models."""
    models = client.models(limit)
    if as_json:
        print_json(models)
        return
    table(
        ["model", ">versions", "aliases", "created"],
        [
            (
                model["name"],
                model["version_count"],
                ", ".join(f"{alias} → {number}" for alias, number in model["aliases"].items()),
                moment(model["created_at"]),
            )
            for model in models
        ],
        empty="No models. `loraworks train --register-as NAME` makes one.",
    )


@app.command("show")
@connected
def show_model(client: Client, name: Name, as_json: AsJson = False) -> None:
    """One model with its versions."""
    model = client.model(name)
    if as_json:
        print_json(model)
        return
    facts([("model", model["name"]), ("created", moment(model["created_at"]))])
    table(
        ["version", "method", "base", ">validation F1", ">test acc", "aliases", "job"],
        [
            (
                version["ref"],
                version["method"],
                version["base"],
                percent((version["metrics"].get("validation") or {}).get("macro_f1")),
                percent((version["metrics"].get("test") or {}).get("accuracy")),
                ", ".join(a for a, n in model["aliases"].items() if n == version["number"]),
                version["job_id"],
            )
            for version in model["versions"]
        ],
        empty="No versions.",
    )


@app.command("register")
@connected
def register(client: Client, name: Name, job: JobId, as_json: AsJson = False) -> None:
    """Make the result of a job the next version of a model."""
    version = client.register(name, job)
    print_json(version) if as_json else say(f"Registered as {version['ref']}.")


@app.command("promote")
@connected
def promote(
    client: Client, version: VersionRef, alias: Alias = PRODUCTION, as_json: AsJson = False
) -> None:
    """Move an alias to a version: this deploys it."""
    name, number = split_ref(version)
    if number is None:
        raise Misuse(f"which version of {name}? Write it like {name}:3", "invalid_model_ref")
    answer = client.promote(name, number, alias)
    print_json(answer) if as_json else say(f"{name}@{alias} is now {version}.")


@app.command("rollback")
@connected
def roll_back(
    client: Client, name: Name, alias: Alias = PRODUCTION, as_json: AsJson = False
) -> None:
    """Move an alias back to the version before."""
    answer = client.roll_back(name, alias)
    number = answer["aliases"][alias]
    print_json(answer) if as_json else say(f"{name}@{alias} is {name}:{number} again.")


@app.command("shadow")
@connected
def shadow(client: Client, name: Name, as_json: AsJson = False) -> None:
    """How NAME@shadow compares with what answers. Start one with `promote --alias shadow`."""
    pairs = client.shadow(name)
    if as_json:
        print_json(pairs)
        return
    table(
        ["answers", "shadow", ">texts", ">agreement", ">difference", ">skipped", ">failed"],
        [
            (
                pair["version"],
                pair["shadow"],
                pair["texts"],
                percent(pair["agreement"]),
                percent(pair["mean_difference"]),
                pair["skipped"],
                pair["failed"],
            )
            for pair in pairs
        ],
        empty=f"Nothing was compared yet. `loraworks models promote {name}:N --alias shadow`.",
    )


@app.command("demote")
@connected
def demote(client: Client, name: Name, alias: Alias = PRODUCTION) -> None:
    """Take an alias away. The version stays."""
    client.demote(name, alias)
    say(f"{name}@{alias} is no more.")


@app.command("delete")
@connected
def delete(client: Client, ref: Ref) -> None:
    """Delete one version, or a model with all its versions. Refused while an alias points there."""
    client.delete_model(*split_ref(ref))
    say(f"Deleted {ref}.")
