"""Bodies of the data set routes."""

from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import Field

from app.datasets.inspection import Columns
from app.datasets.tables import LABELS_SHOWN, Dataset
from app.http.fields import Body, Text, Timestamp, View, file_form
from lora_core.data.findings import Diagnosis, Level

Column = Annotated[str, Text(256)]
DATASET_REF = r"^[a-z0-9-]{1,64}(:[1-9][0-9]{0,8})?$"  # for who reads the schema: others are 404
DatasetRef = Annotated[
    str,
    Field(
        description="`name` (its newest version), `name:2`, or an id.",
        json_schema_extra={"pattern": DATASET_REF},
    ),
]


class DatasetFields(Body):
    """What may come beside the file. The name is by default made from that of the file.

    A name may be any text; the data set is called by the slug that is made of it. With
    `purpose=predict` no labels are looked for; such a file serves prediction runs only.
    """

    name: Annotated[str, Text(64)] | None = None
    purpose: Literal["train", "predict"] = "train"
    text_column: Column = "text"
    label_column: Column = "label"
    split_column: Column | None = None
    sheet: Column | None = None

    @property
    def columns(self) -> Columns:
        """The columns that are checked."""
        if self.purpose == "predict":
            return Columns(self.text_column, None, None, self.sheet)
        return Columns(self.text_column, self.label_column, self.split_column, self.sheet)


class DatasetListItem(View):
    """One uploaded file, as lists show it. A job takes `ref` as `data.source`."""

    id: UUID
    name: str
    title: str = Field(description="What its owner called it; `name` is made from that.")
    version: int
    ref: str
    filename: str
    sha256: str
    bytes: int
    rows: int
    text_column: str
    label_column: str | None = Field(description="Null: it was uploaded without labels.")
    split_column: str | None
    sheet: str | None = Field(description="Of a workbook, the one that was read.")
    labels: dict[str, int] = Field(description=f"Rows of the {LABELS_SHOWN} most frequent ones.")
    label_count: int
    findings: dict[Level, int] | None = Field(
        description="How many the diagnosis has of each level. Null: there is no diagnosis."
    )
    created_at: Timestamp

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        return cls(**cls._fields(dataset))

    @classmethod
    def _fields(cls, dataset: Dataset) -> dict[str, Any]:
        overview = dataset.overview
        return {
            **{name: getattr(dataset, name) for name in _SAME},
            "ref": f"{dataset.name}:{dataset.version}",
            "title": dataset.title or dataset.name,
            "split_column": overview["split_column"],
            "sheet": overview.get("sheet"),
            "labels": overview["labels"],
            "label_count": overview["label_count"],
            "findings": overview["findings"],
        }


_SAME = (frozenset(DatasetListItem.model_fields) & frozenset(Dataset.__mapper__.columns.keys())) - {
    "split_column",  # as it was asked for
    "sheet",
    "title",
}


class DatasetView(DatasetListItem):
    """One uploaded file. A job takes `ref` as `data.source`, a prediction run as `dataset`."""

    labels: dict[str, int] = Field(description="Rows of each.")
    profile: dict[str, Any]
    diagnosis: Diagnosis | None = Field(
        description="What is worth a look before training. Null: nobody has asked for it yet "
        "(`POST …/check`), or at the upload time or memory ran out before it was made."
    )

    @classmethod
    def _fields(cls, dataset: Dataset) -> dict[str, Any]:
        profile = dict(dataset.profile)
        diagnosis = profile.pop("diagnosis", None)  # uploads of a version before have none
        whole = {"labels": profile["labels"], "profile": profile, "diagnosis": diagnosis}
        return {**super()._fields(dataset), **whole}


class RowView(View):
    """One row, as training reads it."""

    row: int = Field(description="1 is the first row of data.")
    text: str = Field(description="Its first 2,000 characters.")
    characters: int = Field(description="That the whole text has.")
    label: str | None
    split: str | None


class RowsView(View):
    """Some rows, in the order of the file."""

    data: list[RowView]
    next: int | None = Field(description="Where to go on: `after` of the next call.")


class ColumnsView(View):
    """The columns of a file that is not kept, and its first rows."""

    columns: list[str]
    rows: list[list[str]] = Field(description="The first 5, long cells cut.")
    text_column: str | None = Field(description="A guess: the column with the longest texts.")
    label_column: str | None = Field(
        description="A guess: the column with the fewest different values that come back."
    )
    encoding: str | None
    separator: str | None
    sheet: str | None = Field(description="Of a workbook, the one that was read.")
    sheets: list[str] = Field(description="All that the workbook shows.")


UPLOAD_FORM = file_form(
    "A .csv, .tsv, .xlsx, .jsonl or .parquet file.",
    **DatasetFields.model_json_schema()["properties"],
)
