"""Follows a sweep until it gives out no more cells: `loraworks sweep watch SWEEP`."""

import time
from collections.abc import Iterator

from app.cli.client import Client
from app.cli.errors import RunFailed, Unreachable
from app.cli.options import AsJson, SweepId, connected
from app.cli.output import json_line, warn
from app.cli.polling import looks
from app.cli.responses import Sweep
from app.cli.sweep_results import counts, ended_cells, leader, print_sweep
from app.cli.watch import Display, Progress, open_display

LOOK_SECONDS = 2.0


@connected
def watch_sweep(client: Client, sweep: SweepId, as_json: AsJson = False) -> None:
    """Follow a sweep live: how many cells have ended, and who leads, to its end, pause or stop.

    Ctrl-C stops watching; the sweep goes on. With --json every change is one line.
    """
    if not as_json:
        conclude(interruptible(client, sweep))
        return
    last = None
    for found in follow(client, sweep):
        if found != last:
            json_line(found)
        last = found
    if last is not None:
        check(last)


def follow(client: Client, sweep_id: str) -> Iterator[Sweep]:
    """The sweep every two seconds, until it does not run any more."""
    for sweep in looks(lambda: client.sweep(sweep_id), every=LOOK_SECONDS):
        yield sweep
        if sweep["state"] != "running":
            return


def interruptible(client: Client, sweep_id: str) -> Sweep:
    """Observe a sweep; Ctrl-C, or a service that is gone, says how to come back to it."""
    try:
        return _observe(client, sweep_id, open_display())
    except (KeyboardInterrupt, Unreachable):
        warn(
            f"The sweep goes on: `loraworks sweep watch {sweep_id}`, "
            f"`loraworks sweep stop {sweep_id}`."
        )
        raise


def conclude(sweep: Sweep) -> None:
    """Print how it stands. Raises `RunFailed` unless it ended with a winner."""
    print_sweep(sweep)
    check(sweep)


def check(sweep: Sweep) -> None:
    """Raises `RunFailed` unless it ended with a winner."""
    state = sweep["state"]
    if state != "finished":
        raise RunFailed(f"sweep {sweep['id']} was {state} before its end", f"sweep_{state}")
    if sweep["verdict"] is None:
        why = f"`loraworks sweep cells {sweep['id']}` says why"
        raise RunFailed(f"no cell ran to its end; {why}", "no_winner")


def _observe(client: Client, sweep_id: str, display: Display) -> Sweep:
    progress, told = Progress(title=sweep_id, unit="cell"), ""
    with display:
        for sweep in follow(client, sweep_id):
            _take(progress, sweep)
            news = leader(sweep)
            display.update(progress, news if news != told else None)
            told = news or told
        display.update(progress, f"{progress.title}: {progress.state}, {counts(sweep)}")
    return sweep


def _take(progress: Progress, sweep: Sweep) -> None:
    """Where it is. The notes below the bar are the counts and the leader."""
    progress.title = f"{sweep['name'] or sweep['id']} ({sweep['strategy']['type']})"
    progress.state = sweep["state"]
    progress.total = sweep["cells"]
    if (done := ended_cells(sweep)) != progress.step:
        progress.reach(done, at=time.time())
    progress.notes.clear()
    progress.note(counts(sweep))
    if ahead := leader(sweep):
        progress.note(ahead)
