"""What a service and the child process that reads its files exchange about labels: which ones are
suspect, and corrections.

Labels are strings, as in rows (`lora_core.data.label_readers`); those of one of several targets
have only its value.
"""

import hashlib

from pydantic import Field

from lora_core.data.data_report import RowExcerpt
from lora_core.data.rows import TextRow
from lora_core.specs.fields import FrozenModel
from lora_core.specs.task import TaskTypeOfTarget

SUSPECTS_VERSION = 1  # increment if the same file would give another report
MAX_CHANGES = 1_000  # of one correction
MAX_SUSPECTS = 500  # of one report
SUSPECT_CHARACTERS = 500  # shown of a text


# -- Suspect labels -------------------------------------------------------------------------------


class SuspectLabelRow(FrozenModel):
    """A row whose label contradicts what a model predicts that was not trained on it."""

    row: int  # 1 is the first data row
    text: str  # the first characters
    text_pair: str | None = Field(default=None, exclude_if=lambda value: value is None)
    characters: int  # length of the whole text, or of both
    split: str | None
    label: str  # as given
    proposed: str
    names: tuple[str, ...] = ()  # multi-label: the names that the two differ by
    # The predicted probability of the proposed label; of several names, the highest. None: a number
    confidence: float | None
    score: float  # higher is more suspect; of numbers |residual| / spread
    nearest: tuple[RowExcerpt, ...]  # rows with the proposed label, or numbers, the most similar
    digest: str  # see `text_label_digest`


class SuspectLabelReport(FrozenModel):
    """The suspect labels of a dataset, or of one of its targets, the most suspect first."""

    version: int  # of the method
    target: str | None
    task: TaskTypeOfTarget
    rows: int  # of the file
    checked: int  # rows that were predicted: a sample, if less than `rows`
    found: int  # suspect rows, of which at most `MAX_SUSPECTS` are listed
    # share of the labels, of several labels of all names of all rows, that the model predicts as
    # given: how much it understands of them. None: numbers, or nothing was checked
    agreement: float | None = None
    spread: float | None = None  # of the residuals of numbers, as a standard deviation
    suspects: tuple[SuspectLabelRow, ...]


def text_label_digest(row: TextRow, target: str | None, label: str) -> str:
    """Return what identifies a text with this label, also in other versions of a dataset."""
    parts = (row.text.strip(), (row.pair or "").strip(), target or "", label)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


# -- Corrections ----------------------------------------------------------------------------------


class RequestedLabelChange(FrozenModel):
    """A label to change."""

    row: int
    target: str | None  # one of several targets
    label: str


class ConfirmedLabel(FrozenModel):
    """A label that was looked at and is right. `target` None: those of all targets."""

    row: int
    target: str | None


class CorrectionPlan(FrozenModel):
    """What to change in a file, what not to suspect again, and which rows to leave out."""

    changes: tuple[RequestedLabelChange, ...]
    keep: tuple[ConfirmedLabel, ...]
    leave_out: tuple[int, ...] = ()


class AppliedLabelChange(FrozenModel):
    """A label before and after."""

    row: int
    target: str | None
    before: str
    after: str


class CorrectionResult(FrozenModel):
    """What was changed and left out, and the digests of what was kept (`text_label_digest`).

    `file` is the name of the corrected file, None without changes. Its format may be another one.
    """

    file: str | None
    changes: tuple[AppliedLabelChange, ...]
    left_out: tuple[int, ...]  # numbers of rows
    kept: tuple[str, ...]
