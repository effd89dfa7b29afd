"""`loraworks retraining` against a running service."""

from pathlib import Path

from app.database.engines import Database
from tests.app.cli.conftest import Run, answer
from tests.app.serving.conftest import Publish, publish
from tests.retraining_rows import add_run

__all__ = ["publish"]


def test_rule(cli: Run, publish: Publish, tmp_path: Path) -> None:
    publish()
    assert cli("retraining", "show", "sentiment").exit_code != 0
    assert cli("retraining", "set", "sentiment").exit_code == 2
    shown = cli("retraining", "set", "sentiment", "--new-labels", "50", "--every-days", "7")
    assert "by itself" in shown.stdout, shown.output
    rule = answer(cli("retraining", "show", "sentiment", "--json"))
    assert (rule["new_labels"], rule["every_days"], rule["level"]) == (50, 7, 0.05)
    shown = cli("retraining", "set", "sentiment", "--on-request", "--level", "0.01")
    assert "on request only" in shown.stdout
    search = tmp_path / "search.json"
    search.write_text("{")
    refused = cli("retraining", "set", "sentiment", "--new-labels", "5", "--search", str(search))
    assert "is not JSON" in refused.stderr
    assert "Deleted" in cli("retraining", "rm", "sentiment").stdout


def test_runs(cli: Run, publish: Publish, database: Database) -> None:
    publish()
    assert "was not retrained yet" in cli("retraining", "list", "sentiment").stdout
    assert "was not retrained yet" in cli("retraining", "report", "sentiment").stderr
    cli("retraining", "set", "sentiment", "--on-request")
    refused = cli("retraining", "start", "sentiment")
    assert "retraining_imported_version" in refused.stderr or refused.exit_code != 0
    run_id = add_run(database)
    assert str(run_id) in cli("retraining", "list", "sentiment").stdout
    for arguments in ((), (str(run_id),)):
        shown = " ".join(cli("retraining", "report", "sentiment", *arguments).stdout.split())
        assert "Version 2 went into production: it is better than version 1" in shown
        assert "left out, disagreement 3" in shown
        assert "0.86 (0.76 to 0.96)" in shown
        assert "Versions compared so far, each at its level: 2." in shown
    assert answer(cli("retraining", "report", "sentiment", "--json"))["state"] == "promoted"
    refused = cli("retraining", "cancel", "sentiment", str(run_id))
    assert "retraining_finished" in refused.stderr
    running = add_run(database, state="training", result=None)
    assert f"Cancelled retraining {running}." in cli("retraining", "cancel", "sentiment").stdout
