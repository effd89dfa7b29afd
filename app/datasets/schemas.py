"""Bodies of the data set routes."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from app.datasets.inspection import Columns
from app.datasets.tables import Dataset
from app.fields import Body, Slug, Text, Timestamp, View, file_form
from lora_core.data.diagnosis import Diagnosis

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

    With `purpose=predict` no labels are looked for; such a file serves prediction runs only.
    """

    name: Slug | None = None
    purpose: Literal["train", "predict"] = "train"
    text_column: Column = "text"
    label_column: Column = "label"
    split_column: Column | None = None

    @property
    def columns(self) -> Columns:
        """The columns that are checked."""
        if self.purpose == "predict":
            return Columns(self.text_column, None, None)
        return Columns(self.text_column, self.label_column, self.split_column)


class DatasetView(View):
    """One uploaded file. A job takes `ref` as `data.source`, a prediction run as `dataset`."""

    id: UUID
    name: str
    version: int
    ref: str
    filename: str
    sha256: str
    bytes: int
    rows: int
    text_column: str
    label_column: str | None = Field(description="Null: it was uploaded without labels.")
    split_column: str | None
    labels: dict[str, int]
    profile: dict[str, Any]
    diagnosis: Diagnosis | None = Field(
        description="What is worth a look before training. Null: nobody has asked for it yet "
        "(`POST …/check`), or at the upload time or memory ran out before it was made."
    )
    created_at: Timestamp

    @classmethod
    def of(cls, dataset: Dataset) -> "DatasetView":
        profile = dict(dataset.profile)
        diagnosis = profile.pop("diagnosis", None)  # uploads of a version before have none
        return cls(
            id=dataset.id,
            name=dataset.name,
            version=dataset.version,
            ref=f"{dataset.name}:{dataset.version}",
            filename=dataset.filename,
            sha256=dataset.sha256,
            bytes=dataset.bytes,
            rows=dataset.rows,
            text_column=dataset.text_column,
            label_column=dataset.label_column,
            split_column=profile["split_column"],
            labels=profile["labels"],
            profile=profile,
            diagnosis=diagnosis,
            created_at=dataset.created_at,
        )


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


UPLOAD_FORM = file_form(
    "A .csv, .tsv, .jsonl or .parquet file.", **DatasetFields.model_json_schema()["properties"]
)
