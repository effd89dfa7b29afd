"""Draws docs/images/watch.svg: what `loraworks watch` shows in the middle of a real run.

Start a service (`loraworks up`), then `python docs/images/watch.py http://127.0.0.1:8000`.
"""

import sys
from pathlib import Path

from rich.console import Console

from app.cli.client import Client
from app.cli.watch import NullDisplay, RunProgress, render_panel, watch_job

PICTURE = Path(__file__).with_suffix(".svg")
JOB = {
    "name": "lora on rotten-tomatoes",
    "method": {
        "type": "lora",
        "r": 8,
        "alpha": 16,
        "targets": ["query", "key", "value", "projection", "mlp"],
    },
    "data": {"source": "rotten-tomatoes", "train_size": 4000, "test_size": 2000},
}


class Photograph(NullDisplay):
    """Keeps the picture of the run at four fifths of its steps."""

    def update(self, progress: RunProgress, news: str | None = None) -> None:  # noqa: ARG002
        if progress.total and progress.step >= 0.8 * progress.total and not PICTURE.exists():
            console = Console(record=True, width=88, force_terminal=True, quiet=False)
            console.print(render_panel(progress, unicode=True))
            console.save_svg(str(PICTURE), title="loraworks watch")


def main() -> None:
    PICTURE.unlink(missing_ok=True)
    with Client(sys.argv[1]) as client:
        watch_job(client, client.create_job(JOB), Photograph())


if __name__ == "__main__":
    main()
