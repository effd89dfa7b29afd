"""Runs the code blocks of documents: some in a fresh clone, the rest after the tutorial."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from tests.docs.blocks import DOCUMENTS, RUN, blocks
from tests.docs.given import make_files
from tests.docs.session import Session

TUTORIAL = "docs/tutorial.md"
FRESH = ["README.md", "docs/reference/cli.md"]
GUIDES = [
    document
    for document in DOCUMENTS
    if document not in {TUTORIAL, *FRESH}
    and any(block.language in RUN and not block.needs for block in blocks(document))
]


def begin(document: str, folder: Path, *, full: bool) -> None:
    """Run a document in a fresh clone, with its own service."""
    with closing(Session(folder / "home", full=full)) as session:
        session.run("git clone here loraworks; cd loraworks; . .venv/bin/activate")
        make_files(session.home / "loraworks")
        session.follow(document)


@dataclass
class Followed:
    """The tutorial, run to its end or to an error. Its service is still running."""

    session: Session
    error: AssertionError | None = None

    def go_on(self, document: str) -> None:
        """Run another document in the state after the tutorial."""
        folder = self.session.home / "loraworks"
        home = self.session.home.parent / document.replace("/", "-")
        with closing(Session(home, full=self.session.full, of=self.session)) as session:
            session.run(f"cd {folder}; . .venv/bin/activate")
            before = _in_production(session)
            session.follow(document)
            # Several models in production would make a question without a model ambiguous.
            for name in _in_production(session) - before:
                url = f"{session.service}/v1/models/{name}/aliases/production"
                httpx2.delete(url).raise_for_status()


def _in_production(session: Session) -> set[str]:
    models = httpx2.get(f"{session.service}/v1/models").raise_for_status().json()["data"]
    return {each["name"] for each in models if "production" in each["aliases"]}


@contextmanager
def followed(folder: Path, *, full: bool) -> Iterator[Followed]:
    """Run the tutorial in a folder, and create the files that later documents need."""
    with closing(Session(folder / "tutorial", full=full)) as session:
        after = Followed(session)
        try:
            session.follow(TUTORIAL)
        except AssertionError as error:
            after.error = error
        make_files(session.home / "loraworks")
        yield after
