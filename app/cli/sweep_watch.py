"""Follows a sweep until it starts no more trials: `loraworks sweep watch SWEEP`."""

import time
from collections.abc import Iterator

from app.cli.client import Client
from app.cli.connection import poll
from app.cli.errors import RunFailed, ServiceUnreachable
from app.cli.options import AsJson, SweepId, with_client
from app.cli.output import print_json_line, print_warning
from app.cli.responses import SweepJson
from app.cli.sweep_results import count_finished, describe_leader, format_counts, print_sweep
from app.cli.watch import ProgressDisplay, RunProgress, open_display

POLL_SECONDS = 2.0


@with_client
def watch_sweep(client: Client, sweep: SweepId, as_json: AsJson = False) -> None:
    """Follow a sweep live until it finishes, pauses or stops.

    Ctrl-C stops watching; the sweep continues. --json prints one line per change.
    """
    if not as_json:
        print_outcome(watch_with_hint(client, sweep))
        return
    last = None
    for found in follow(client, sweep):
        if found != last:
            print_json_line(found)
        last = found
    if last is not None:
        raise_unless_finished(last)


def follow(client: Client, sweep_id: str) -> Iterator[SweepJson]:
    """Yield the sweep every two seconds, until it is not running any more."""
    for sweep in poll(lambda: client.get_sweep(sweep_id), interval=POLL_SECONDS):
        yield sweep
        if sweep["state"] != "running":
            return


def watch_with_hint(client: Client, sweep_id: str) -> SweepJson:
    """Watch a sweep. After Ctrl-C or an outage, print how to return to it."""
    try:
        return _watch(client, sweep_id, open_display())
    except (KeyboardInterrupt, ServiceUnreachable):
        print_warning(
            f"The sweep continues. Follow it with `loraworks sweep watch {sweep_id}`, "
            f"or stop it with `loraworks sweep stop {sweep_id}`."
        )
        raise


def print_outcome(sweep: SweepJson) -> None:
    """Print the sweep. Raises `RunFailed` unless it finished with a winner."""
    print_sweep(sweep)
    raise_unless_finished(sweep)


def raise_unless_finished(sweep: SweepJson) -> None:
    """Raise `RunFailed` unless the sweep finished with a winner."""
    state = sweep["state"]
    if state != "finished":
        raise RunFailed(f"sweep {sweep['id']} was {state} before it finished", f"sweep_{state}")
    if sweep["verdict"] is None:
        command = f"`loraworks sweep cells {sweep['id']}`"
        raise RunFailed(f"no trial ran to its end; see {command} for the reasons", "no_winner")


def _watch(client: Client, sweep_id: str, display: ProgressDisplay) -> SweepJson:
    progress, last_news = RunProgress(title=sweep_id, unit="trial"), ""
    with display:
        for sweep in follow(client, sweep_id):
            _update_progress(progress, sweep)
            news = describe_leader(sweep)
            display.update(progress, news if news != last_news else None)
            last_news = news or last_news
        display.update(progress, f"{progress.title}: {progress.state}, {format_counts(sweep)}")
    return sweep


def _update_progress(progress: RunProgress, sweep: SweepJson) -> None:
    """Update state and step. The notes below the bar are the counts and the leader."""
    progress.title = f"{sweep['name'] or sweep['id']} ({sweep['strategy']['type']})"
    progress.state = sweep["state"]
    progress.total = sweep["cells"]
    if (done := count_finished(sweep)) != progress.step:
        progress.set_step(done, at=time.time())
    progress.notes.clear()
    progress.add_note(format_counts(sweep))
    if ahead := describe_leader(sweep):
        progress.add_note(ahead)
