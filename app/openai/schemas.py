"""Request and response bodies of files, fine-tuning jobs and models in the OpenAI API."""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from app.http.fields import CleanText, Metadata, RequestModel, ResponseModel, multipart_file_openapi
from lora_core.specs.fields import Float, Int
from lora_core.specs.method import (
    SKLEARN_METHODS,
    AutoSpec,
    FullFineTuningSpec,
    LastLayersBaselineSpec,
    LinearSpec,
    LoraSpec,
    MethodName,
    MethodSpec,
    ProbeSpec,
)

MIN_EXAMPLES = 10  # of a training file, as at OpenAI

FileId = Annotated[str, CleanText(64)]

# -- Files ----------------------------------------------------------------------------------------


class FileUpload(RequestModel):
    """Form fields sent with a file."""

    purpose: Literal["fine-tune"]
    expires_after_anchor: None = Field(default=None, alias="expires_after[anchor]")
    expires_after_seconds: None = Field(default=None, alias="expires_after[seconds]")

    @field_validator("purpose", mode="before")
    @classmethod
    def _only_fine_tune(cls, value: Any) -> Any:
        if value != "fine-tune":
            raise PydanticCustomError("unsupported_purpose", "must be 'fine-tune'")
        return value

    @field_validator("expires_after_anchor", "expires_after_seconds", mode="before")
    @classmethod
    def _no_expiry(cls, _: Any) -> Any:
        raise PydanticCustomError(
            "unsupported_expiry", "files do not expire here: leave expires_after out"
        )


FILE_FORM = multipart_file_openapi(
    "A .jsonl file in chat form, or any file that POST /v1/datasets takes.",
    purpose={"type": "string", "const": "fine-tune"},
)


class OpenAIFile(ResponseModel):
    """An uploaded file, or the results of a job as CSV."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: Literal["fine-tune", "fine-tune-results"]
    status: Literal["processed"] = "processed"
    expires_at: int | None = None
    status_details: None = None


class OpenAIFileList(ResponseModel):
    """A page of files."""

    object: Literal["list"] = "list"
    data: list[OpenAIFile]
    first_id: str | None
    last_id: str | None
    has_more: bool


class OpenAIFileDeleted(ResponseModel):
    """The deleted file."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


# -- Fine-tuning jobs: what a client asks for -----------------------------------------------------

_Auto = Literal["auto"]


class Hyperparameters(RequestModel):
    """Settings of the training; `auto` leaves them to loraworks."""

    batch_size: _Auto | Annotated[Int, Field(ge=1, le=4096)] = "auto"
    learning_rate_multiplier: _Auto | Annotated[Float, Field(ge=1e-6, le=1e6)] = Field(
        default="auto", description="Of the default learning rate of the method."
    )
    n_epochs: _Auto | Annotated[Int, Field(ge=1, le=1000)] = "auto"

    @property
    def is_automatic(self) -> bool:
        """Whether everything is left to loraworks."""
        return self == Hyperparameters()


class SupervisedSettings(RequestModel):
    """Settings of the method `supervised`."""

    hyperparameters: Hyperparameters = Hyperparameters()


_METHOD: TypeAdapter[MethodSpec] = TypeAdapter(MethodSpec)
_REFUSED_METHODS = {
    "dpo": "learns from pairs of answers",
    "reinforcement": "learns from graders",
}


class FineTuningMethodBody(RequestModel):
    """The method. Its settings are in the field named like its type.

    `supervised` is that of OpenAI: `auto`, or `lora` if any hyperparameter is a number. The others
    are the methods of `POST /v1/jobs`, with the same settings.
    """

    type: Literal["supervised"] | MethodName
    supervised: SupervisedSettings | None = None
    auto: AutoSpec | None = None
    linear: LinearSpec | None = None
    probe: ProbeSpec | None = None
    baseline: LastLayersBaselineSpec | None = None
    lora: LoraSpec | None = None
    full: FullFineTuningSpec | None = None

    @field_validator("type", mode="before")
    @classmethod
    def _no_generation(cls, value: Any) -> Any:
        if isinstance(value, str) and value in _REFUSED_METHODS:
            raise PydanticCustomError(
                "unsupported_method",
                "{type} {learns}, and a classifier learns from labels: use supervised",
                {"type": value, "learns": _REFUSED_METHODS[value]},
            )
        return value

    @field_validator("supervised", "auto", "linear", "probe", "baseline", "lora", "full")
    @classmethod
    def _settings_of_the_type(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and "type" in info.data and info.data["type"] != info.field_name:
            raise PydanticCustomError(
                "other_method", "belongs to another method than {type}", {"type": info.data["type"]}
            )
        return value

    @property
    def spec(self) -> MethodSpec | None:
        """The method of loraworks that it names; None for `supervised`."""
        if self.type == "supervised":
            return None
        settings = getattr(self, self.type)
        return _METHOD.validate_python({"type": self.type} if settings is None else settings)


class Integration(RequestModel):
    """A service to which OpenAI sends metrics. Here the job gets a warning instead."""

    type: Literal["wandb"]
    wandb: dict[str, Any] = Field(default_factory=dict)


class FineTuningJobCreate(RequestModel):
    """A fine-tuning job.

    `model` is `minilm-l6`, a model of this installation (also by its `ft:…` name), or an allowed
    model of the hub. In place of a model of OpenAI, `minilm-l6` is trained.
    """

    model: Annotated[str, CleanText(512)]
    training_file: FileId
    validation_file: FileId | None = None
    suffix: Annotated[str, CleanText(64)] | None = Field(
        default=None, description="Name of the model; by default that of the training file."
    )
    seed: Annotated[Int, Field(ge=0, lt=2**32)] | None = None
    metadata: Metadata | None = None
    integrations: Annotated[list[Integration], Field(max_length=5)] | None = None
    method: FineTuningMethodBody | None = None
    hyperparameters: Hyperparameters | None = Field(
        default=None, description="Deprecated by OpenAI: use `method`."
    )

    @field_validator("hyperparameters")
    @classmethod
    def _of_the_method(
        cls, value: Hyperparameters | None, info: ValidationInfo
    ) -> Hyperparameters | None:
        method: FineTuningMethodBody | None = info.data.get("method")
        if value is None or value.is_automatic or method is None:
            return value
        if method.supervised is not None and method.supervised.hyperparameters != value:
            raise PydanticCustomError(
                "hyperparameters_twice", "differ from those of method.supervised: omit one"
            )
        if method.type == "auto" or method.type in SKLEARN_METHODS:
            raise PydanticCustomError(
                "no_epochs", "the method {type} has none of them", {"type": method.type}
            )
        return value


# -- Fine-tuning jobs: responses ------------------------------------------------------------------


class FineTuningErrorBody(ResponseModel):
    """Why a job failed."""

    code: str
    message: str
    param: Literal["training_file", "validation_file"] | None


class FineTuningJob(ResponseModel):
    """A fine-tuning job."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    model: str = Field(description="The model that is fine-tuned.")
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    error: FineTuningErrorBody | None
    fine_tuned_model: str | None = Field(description="Null until the job has succeeded.")
    finished_at: int | None
    estimated_finish: int | None = Field(description="Null unless the job is running.")
    hyperparameters: dict[str, Any]
    method: dict[str, Any]
    seed: int
    training_file: str
    validation_file: str | None
    result_files: list[str]
    trained_tokens: int | None = Field(
        description="Null until the job has succeeded, and for methods without epochs."
    )
    integrations: None = None
    metadata: dict[str, str] | None
    organization_id: str


class FineTuningJobList(ResponseModel):
    """A page of jobs, the newest first."""

    object: Literal["list"] = "list"
    data: list[FineTuningJob]
    has_more: bool


class FineTuningEvent(ResponseModel):
    """Something that happened to a job, or the metrics of an evaluation."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any]


class FineTuningEventList(ResponseModel):
    """A page of events, the newest first."""

    object: Literal["list"] = "list"
    data: list[FineTuningEvent]
    has_more: bool


class CheckpointMetrics(ResponseModel):
    """Metrics of the kept model. A text has one label, so it counts as one token."""

    step: int
    train_loss: float | None
    train_mean_token_accuracy: float | None
    valid_loss: float | None
    valid_mean_token_accuracy: float | None
    full_valid_loss: float | None
    full_valid_mean_token_accuracy: float | None


class FineTuningCheckpoint(ResponseModel):
    """The model that a job kept."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    step_number: int
    metrics: CheckpointMetrics


class FineTuningCheckpointList(ResponseModel):
    """The one checkpoint of a job that succeeded; none before."""

    object: Literal["list"] = "list"
    data: list[FineTuningCheckpoint]
    first_id: str | None
    last_id: str | None
    has_more: bool = False


# -- Models ----------------------------------------------------------------------------------------


class OpenAIModel(ResponseModel):
    """A model that can be called."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class OpenAIModelList(ResponseModel):
    """All models; this list has no pages."""

    object: Literal["list"] = "list"
    data: list[OpenAIModel]


class OpenAIModelDeleted(ResponseModel):
    """The deleted model."""

    id: str
    object: Literal["model"] = "model"
    deleted: bool = True
