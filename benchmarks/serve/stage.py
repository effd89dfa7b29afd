"""Context managers that run a server in a temporary folder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from app.cli.demo import environment_without_settings
from benchmarks.child_process import last_line
from benchmarks.serve import checkpoint, sides
from benchmarks.serve.server_process import Server, running
from benchmarks.serve.sides import Side

DEFAULT = ("/predict",)


@contextmanager
def ours(
    *,
    paths: Sequence[str] = DEFAULT,
    keys: int = 0,
    adapters: int = 0,
    second: bool = False,
    engine: str = "auto",
) -> Iterator[tuple[Server, Side]]:
    """Our service with the trained model in production, and optional random adapters.

    Requests go to `paths`. Without keys, authentication is off.
    """
    with TemporaryDirectory(prefix="bench-serve-") as temporary:
        data = Path(temporary) / "data"
        words = ["--keys", str(keys), "--adapters", str(adapters), *["--second"] * second]
        made = last_line(
            "the installation", "benchmarks.serve.installation", str(data), *words,
            environment=environment_without_settings(),
        )  # fmt: skip
        side = sides.ours(data, paths=paths, keys=made, engine=engine)
        with _answering(side, Path(temporary)) as server:
            yield server, side


@contextmanager
def competitor(name: str, tuning: str) -> Iterator[tuple[Server, Side]]:
    """One of `plan.COMPETITORS` with one of its tunings."""
    side = sides.competitor(name, tuning)
    with (
        TemporaryDirectory(prefix="bench-serve-") as temporary,
        _answering(side, Path(temporary)) as server,
    ):
        yield server, side


@contextmanager
def _answering(side: Side, folder: Path) -> Iterator[Server]:
    with running(side.words, side.environment, folder) as server:
        server.wait_until_it_answers(side.target, checkpoint.read_texts(1)[0])
        yield server
