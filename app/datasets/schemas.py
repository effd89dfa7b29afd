"""Request and response bodies of the dataset routes."""

from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from app.http.fields import (
    CleanText,
    RequestModel,
    ResponseModel,
    Timestamp,
    multipart_file_openapi,
)
from lora_core.data.data_report import DataReport, Severity
from lora_core.data.label_readers import LabelFormat, TargetColumns, list_target_columns
from lora_core.data.rows import MAX_COLUMNS
from lora_core.specs.task import SeveralTargetsSpec, TaskType
from lora_core.specs.validation_problems import first_problem_location_and_message

MAX_LISTED_LABELS = 10  # the most frequent labels that a list shows

MAX_COLUMN_CHARACTERS = 256
ColumnName = Annotated[str, CleanText(MAX_COLUMN_CHARACTERS)]
_MAX_TARGETS_BYTES = 100_000  # they are one argument of a child, which is limited to 131,071
# For the schema only: other values give 404.
DATASET_REF_PATTERN = r"^[a-z0-9-]{1,64}(:[1-9][0-9]{0,8})?$"
DatasetRef = Annotated[
    str,
    Field(
        description="`name` (its newest version), `name:2`, or an id.",
        json_schema_extra={"pattern": DATASET_REF_PATTERN},
    ),
]


def parse_comma_separated(text: str) -> tuple[str, ...]:
    """Parse `toxic, insult`."""
    return tuple(name.strip() for name in text.split(","))


class UploadFields(RequestModel):
    """Form fields sent with the file. By default the name is derived from the file name.

    The name can be any text; a slug of it becomes the name of the dataset. With
    `purpose=predict` the file needs no labels, and can only be used for prediction runs.
    """

    name: Annotated[str, CleanText(64)] | None = None
    purpose: Literal["train", "predict"] = "train"
    text_column: ColumnName = "text"
    text_pair_column: ColumnName | None = None
    task: TaskType = Field(
        default="single_label",
        description="What the labels are: one name, any number of names, or a number.",
    )
    ordered: bool = Field(default=False, description="The names are ranks, such as stars.")
    label_column: ColumnName = "label"
    label_separator: Annotated[str, CleanText(8)] | None = Field(
        default=None, description="multi_label: what separates the labels in a cell."
    )
    label_columns: Annotated[str, CleanText(100_000)] | None = Field(
        default=None,
        description="multi_label: the columns of 0 and 1, one for each label, separated by commas.",
    )
    targets: Annotated[str, CleanText(100_000)] | None = Field(
        default=None,
        description="several_targets: `stars=regression,topic,flags=multi_label`, each from the "
        "column with its name or `NAME=TYPE:COLUMN`; or a JSON object as in `task.targets`.",
    )
    split_column: ColumnName | None = None
    sheet: ColumnName | None = None

    @model_validator(mode="before")
    @classmethod
    def _targets_imply_task(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("targets") and value.get("task") is None:
            return {**value, "task": "several_targets"}
        return value

    @field_validator("ordered")
    @classmethod
    def _only_names_are_ranks(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("task") != "single_label":
            raise PydanticCustomError("wrong_task", "needs the task single_label")
        return value

    @field_validator("label_separator", "label_columns")
    @classmethod
    def _only_of_label_sets(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("task") != "multi_label":
            raise PydanticCustomError("wrong_task", "needs the task multi_label")
        return value

    @field_validator("label_columns")
    @classmethod
    def _distinct_columns(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        if info.data.get("label_separator") is not None:
            raise PydanticCustomError("exclusive", "must be empty if label_separator is given")
        names = parse_comma_separated(value)
        if max(map(len, names)) > MAX_COLUMN_CHARACTERS:
            raise PydanticCustomError(
                "column_names",
                "must be names of at most {limit} characters",
                {"limit": MAX_COLUMN_CHARACTERS},
            )
        if "" in names or len(set(names)) < len(names) or len(names) > MAX_COLUMNS:
            raise PydanticCustomError("column_names", "must be distinct names of columns")
        return value

    @field_validator("targets")
    @classmethod
    def _valid_targets(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        if info.data.get("task") != "several_targets":
            raise PydanticCustomError("wrong_task", "needs the task several_targets")
        if info.data.get("label_column") not in (None, "label"):
            raise PydanticCustomError("exclusive", "must be empty if label_column is given")
        if len(value.encode()) > _MAX_TARGETS_BYTES:
            raise PydanticCustomError(
                "targets",
                "must have at most {limit} bytes in UTF-8",
                {"limit": f"{_MAX_TARGETS_BYTES:,}"},
            )
        try:
            _read_targets(value)
        except ValidationError as error:
            at, problem = first_problem_location_and_message(error, SeveralTargetsSpec)
            raise PydanticCustomError(
                "targets", "{at}: {problem}", {"at": at, "problem": problem}
            ) from error
        return value

    @model_validator(mode="after")
    def _targets_are_named(self) -> Self:
        if self.task == "several_targets" and self.targets is None:
            raise PydanticCustomError("targets", "the task several_targets needs targets")
        return self

    @property
    def label_format(self) -> LabelFormat:
        """What the label column contains."""
        if self.targets is not None:
            return LabelFormat(self.task, targets=_read_targets(self.targets))
        columns = self.label_columns and parse_comma_separated(self.label_columns)
        return LabelFormat(self.task, self.label_separator, columns or None, self.ordered)


def _read_targets(text: str) -> tuple[TargetColumns, ...]:
    return list_target_columns(SeveralTargetsSpec.model_validate({"targets": text}))


class DatasetListItem(ResponseModel):
    """An uploaded file in a list. Jobs take its `ref` as `data.source`."""

    id: UUID
    name: str
    title: str = Field(description="The name as it was sent; `name` is derived from it.")
    version: int
    ref: str
    filename: str
    sha256: str
    bytes: int
    rows: int
    text_column: str
    text_pair_column: str | None = Field(
        description="The column of the second text, if rows are pairs of texts."
    )
    label_column: str | None = Field(description="Null: uploaded without labels.")
    task: TaskType = Field(description="What the labels were checked as.")
    ordered: bool = Field(description="The labels are ranks.")
    label_separator: str | None = Field(description="What separates the labels in a cell.")
    label_columns: list[str] | None = Field(
        description="The columns of 0 and 1, one for each label, that are read as labels."
    )
    targets: dict[str, dict[str, Any]] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="Several targets: how each is read, as in `task.targets` of a job.",
    )
    split_column: str | None
    sheet: str | None = Field(description="The sheet of a workbook that was read.")
    labels: dict[str, int] = Field(
        description=f"Number of rows of the {MAX_LISTED_LABELS} most frequent labels."
    )
    label_count: int
    findings: dict[Severity, int] | None = Field(
        description="Number of findings of each level. Null: there is no diagnosis."
    )
    created_at: Timestamp


class DatasetView(DatasetListItem):
    """An uploaded file. Jobs take its `ref` as `data.source`, prediction runs as `dataset`."""

    labels: dict[str, int] = Field(description="Number of rows of each label.")
    profile: dict[str, Any]
    diagnosis: DataReport | None = Field(
        description="Findings to look at before training. Null: not requested yet "
        "(`POST …/check`), or time or memory ran out at the upload."
    )


class DatasetRowView(ResponseModel):
    """A row as training reads it."""

    row: int = Field(description="Row number; 1 is the first data row.")
    text: str = Field(description="The first 2,000 characters of the text.")
    text_pair: str | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="The first 2,000 characters of the second text of a pair.",
    )
    characters: int = Field(description="Length of the full text, or of both texts of a pair.")
    label: str | None = Field(
        description="A name, a JSON list of names, or a number, depending on the task."
    )
    split: str | None


class DatasetRows(ResponseModel):
    """A page of rows, in the order of the file."""

    data: list[DatasetRowView]
    next: int | None = Field(description="`after` of the next page. Null: this is the last one.")


class FilePreview(ResponseModel):
    """The columns of a file and its first rows. The file is not stored."""

    columns: list[str]
    rows: list[list[str]] = Field(description="The first 5 rows; long cells are truncated.")
    text_column: str | None = Field(description="Guess: the column with the longest texts.")
    label_column: str | None = Field(
        description="Guess: the column with the fewest distinct values that repeat."
    )
    encoding: str | None
    separator: str | None
    sheet: str | None = Field(description="The sheet of a workbook that was read.")
    sheets: list[str] = Field(description="All visible sheets of the workbook.")
    targets: dict[str, TaskType] | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="What the labels are, by name, if each line has an object `labels`.",
    )


UPLOAD_FORM = multipart_file_openapi(
    "A .csv, .tsv, .xlsx, .jsonl, .json or .parquet file.",
    **UploadFields.model_json_schema()["properties"],
)
