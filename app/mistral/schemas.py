"""Request and response bodies of files, jobs and models in the Mistral API."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StrictBool, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from app.http.fields import (
    CleanText,
    RequestModel,
    ResponseModel,
    multipart_file_openapi,
    normalize_label,
)
from lora_core.specs.fields import Float, Int
from lora_core.specs.task import MAX_TARGETS
from lora_core.specs.train import MAX_EPOCHS

# The SDK sends it as the learning rate of every job that does not set one.
DEFAULT_LEARNING_RATE = 1e-4

FileId = Annotated[str, CleanText(64)]

# -- Files ----------------------------------------------------------------------------------------


class MistralFileUpload(RequestModel):
    """Form fields sent with a file."""

    purpose: Literal["fine-tune"] = "fine-tune"
    visibility: Literal["workspace"] = "workspace"
    expiry: None = None

    @field_validator("purpose", mode="before")
    @classmethod
    def _only_fine_tune(cls, value: Any) -> Any:
        if value != "fine-tune":
            raise PydanticCustomError("unsupported_purpose", "must be 'fine-tune'")
        return value

    @field_validator("visibility", mode="before")
    @classmethod
    def _for_all_keys(cls, value: Any) -> Any:
        if value != "workspace":
            raise PydanticCustomError(
                "unsupported_visibility",
                "must be 'workspace': every API key with the scope datasets:read may read files",
            )
        return value

    @field_validator("expiry", mode="before")
    @classmethod
    def _no_expiry(cls, _: Any) -> Any:
        raise PydanticCustomError("unsupported_expiry", "files do not expire here: leave it out")


MISTRAL_FILE_FORM = multipart_file_openapi(
    "A .jsonl file; each line has `text` or `messages`, and an object `labels`.",
    purpose={"type": "string", "const": "fine-tune"},
    visibility={"type": "string", "const": "workspace"},
)


class MistralFile(ResponseModel):
    """An uploaded file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: Literal["fine-tune"] = "fine-tune"
    sample_type: Literal["instruct"] = "instruct"
    source: Literal["upload"] = "upload"
    num_lines: int
    mimetype: str
    signature: None = None
    expires_at: None = None


class MistralFileDetails(MistralFile):
    """An uploaded file that was asked for by its id."""

    deleted: Literal[False] = False


class MistralFileList(ResponseModel):
    """A page of files, the newest first."""

    object: Literal["list"] = "list"
    data: list[MistralFile]
    total: int | None = Field(description="Of all pages; null with `include_total=false`.")


class MistralFileDeleted(ResponseModel):
    """The deleted file."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


# -- Jobs: what a client asks for -----------------------------------------------------------------


class MistralTrainingFile(RequestModel):
    """A training file."""

    file_id: FileId
    weight: Float = 1.0

    @field_validator("weight")
    @classmethod
    def _alone(cls, value: float) -> float:
        if value != 1:
            raise PydanticCustomError(
                "unsupported_weight", "must be 1: there is no other file to weigh it against"
            )
        return value


class MistralHyperparameters(RequestModel):
    """Settings of the training. Without any, loraworks chooses the method and its settings."""

    training_steps: Annotated[Int, Field(ge=1, le=100_000)] | None = Field(
        default=None,
        description="Updates of the weights, rounded up to whole epochs, 1,000 at most.",
    )
    learning_rate: Annotated[Float, Field(gt=0, le=1)] = Field(
        default=DEFAULT_LEARNING_RATE,
        description="In proportion to the default: twice as much doubles our own rates.",
    )
    weight_decay: Annotated[Float, Field(ge=0, le=1)] | None = None
    warmup_fraction: Annotated[Float, Field(ge=0, le=1)] | None = None
    epochs: Annotated[Float, Field(gt=0, le=MAX_EPOCHS)] | None = Field(
        default=None, description="A whole number."
    )
    seq_len: Annotated[Int, Field(ge=8, le=8192)] | None = Field(
        default=None, description="Tokens that are read of a text."
    )
    fim_ratio: Float | None = Field(
        default=None, description="Of completion models. Changes nothing."
    )

    @field_validator("epochs")
    @classmethod
    def _whole(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is None:
            return None
        if not value.is_integer():
            raise PydanticCustomError("fractional_epochs", "must be a whole number")
        if info.data.get("training_steps") is not None:
            raise PydanticCustomError("exclusive", "must be left out if training_steps is given")
        return value

    @property
    def is_automatic(self) -> bool:
        """Whether the method is left to loraworks."""
        untouched = MistralHyperparameters(seq_len=self.seq_len, fim_ratio=self.fim_ratio)
        return self == untouched


LossFunction = Literal["single_class", "multi_class"]


class MistralTrainingTarget(RequestModel):
    """A target that the model predicts: the labels of this name in each line."""

    name: Annotated[str, CleanText(256)]
    labels: Annotated[
        list[Annotated[str, CleanText(256), AfterValidator(normalize_label)]],
        Field(min_length=1, max_length=1000),
    ] = Field(description="All labels that occur in the file.")
    weight: Annotated[Float, Field(gt=0, le=1000)] = Field(
        default=1.0, description="Factor of its loss, beside other targets."
    )
    loss_function: LossFunction | None = Field(
        default=None,
        description="`single_class`: one label for each text; `multi_class`: any number of labels. "
        "Default: that of the file.",
    )


class MistralJobCreate(RequestModel):
    """A job that trains a classifier.

    `model` is `minilm-l6`, a model of this installation (also by its `ft:…` name), or an allowed
    model of the hub. In place of a model of Mistral, `minilm-l6` is trained.
    """

    model: Annotated[str, CleanText(512)]
    job_type: Literal["classifier"] | None = None
    hyperparameters: MistralHyperparameters
    training_files: Annotated[list[MistralTrainingFile], Field(min_length=1)]
    validation_files: list[FileId] | None = None
    classifier_targets: (
        Annotated[list[MistralTrainingTarget], Field(min_length=1, max_length=MAX_TARGETS)] | None
    ) = Field(default=None, description="Default: all targets of the file.")
    suffix: Annotated[str, CleanText(64)] | None = Field(
        default=None, description="Name of the model; by default that of the training file."
    )
    auto_start: StrictBool | None = Field(
        default=None, description="False: the job waits until it is started."
    )
    invalid_sample_skip_percentage: Annotated[Float, Field(ge=0, le=100)] = Field(
        default=0.0, description="Changes nothing: a file with an invalid line is not stored."
    )
    integrations: Annotated[list[dict[str, Any]], Field(max_length=16)] | None = Field(
        default=None, description="Nothing is sent anywhere: the job gets a warning."
    )
    repositories: Annotated[list[dict[str, Any]], Field(max_length=16)] | None = Field(
        default=None, description="Not supported."
    )

    @field_validator("job_type", mode="before")
    @classmethod
    def _only_classifiers(cls, value: Any) -> Any:
        if value not in (None, "classifier"):
            raise PydanticCustomError(
                "unsupported_job_type",
                "must be 'classifier': the models of this service answer with labels only",
            )
        return value

    @field_validator("training_files", "validation_files")
    @classmethod
    def _one_file(cls, value: list[Any] | None) -> list[Any] | None:
        if value is not None and len(value) > 1:
            raise PydanticCustomError("several_files", "must be one file: join them into one")
        return value

    @field_validator("classifier_targets")
    @classmethod
    def _distinct(
        cls, value: list[MistralTrainingTarget] | None
    ) -> list[MistralTrainingTarget] | None:
        names = [target.name for target in value or ()]
        if len(set(names)) < len(names):
            raise PydanticCustomError("repeated_target", "must have each name once")
        return value

    @field_validator("repositories")
    @classmethod
    def _no_repositories(cls, value: list[Any] | None) -> list[Any] | None:
        if value:
            raise PydanticCustomError(
                "unsupported_repositories", "are not supported: upload a file"
            )
        return value

    @property
    def starts(self) -> bool:
        """Whether the job starts as soon as a worker is free."""
        return self.auto_start is not False


# -- Jobs: responses ------------------------------------------------------------------------------

MistralStatus = Literal[
    "QUEUED",
    "VALIDATED",
    "RUNNING",
    "SUCCESS",
    "FAILED",
    "FAILED_VALIDATION",
    "CANCELLED",
    "CANCELLATION_REQUESTED",
]
# Those that clients may filter by; a job here is never in the first two.
MistralStatusFilter = Literal["STARTED", "VALIDATING", MistralStatus]


class MistralJobView(ResponseModel):
    """A job."""

    id: str
    object: Literal["job"] = "job"
    job_type: Literal["classifier"] = "classifier"
    auto_start: bool
    model: str = Field(description="The model that is fine-tuned.")
    status: MistralStatus
    created_at: int
    modified_at: int = Field(description="When it was created, started or finished.")
    training_files: list[str]
    validation_files: list[str]
    hyperparameters: dict[str, Any]
    fine_tuned_model: str | None = Field(description="Null until the job has succeeded.")
    suffix: str | None
    integrations: None = None
    trained_tokens: int | None = Field(
        description="Null until the job has succeeded, and for methods without epochs."
    )
    metadata: dict[str, Any]


class MistralJobList(ResponseModel):
    """A page of jobs, the newest first."""

    object: Literal["list"] = "list"
    data: list[MistralJobView]
    total: int = Field(description="Of all pages.")


class MistralEvent(ResponseModel):
    """Something that happened to a job."""

    name: str
    created_at: int
    data: dict[str, Any]


class MistralCheckpointMetrics(ResponseModel):
    """Metrics at a step. A text counts as one token: it has one answer."""

    train_loss: float | None
    valid_loss: float | None
    valid_mean_token_accuracy: float | None


class MistralCheckpoint(ResponseModel):
    """An evaluation on the validation split."""

    step_number: int
    created_at: int
    metrics: MistralCheckpointMetrics


class MistralJobDetails(MistralJobView):
    """A job with its targets, its newest events, and its evaluations."""

    classifier_targets: list[dict[str, Any]]
    events: list[MistralEvent]
    checkpoints: list[MistralCheckpoint]


# -- Models ---------------------------------------------------------------------------------------


class MistralCapabilities(ResponseModel):
    """What a model can do."""

    completion_chat: bool = False
    completion_fim: bool = False
    function_calling: bool = False
    fine_tuning: bool = False
    vision: bool = False
    classification: bool = True


class MistralModel(ResponseModel):
    """A model that can be called."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    capabilities: MistralCapabilities = MistralCapabilities()
    name: str | None = None
    description: str | None = None
    max_context_length: int = Field(description="Tokens that are read of a text.")
    aliases: list[str] = Field(default_factory=list)
    deprecation: None = None
    type: Literal["base", "fine-tuned"]
    job: str | None = Field(default=None, exclude_if=lambda value: value is None)
    root: str | None = Field(default=None, exclude_if=lambda value: value is None)
    archived: bool = False


class MistralModelList(ResponseModel):
    """All models; this list has no pages."""

    object: Literal["list"] = "list"
    data: list[MistralModel]


class MistralModelDeleted(ResponseModel):
    """The deleted model."""

    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True


class MistralModelUpdate(RequestModel):
    """What a client calls a model. It is called by its id all the same."""

    name: Annotated[str, CleanText(256)] | None = None
    description: Annotated[str, CleanText(4000, min_length=0)] | None = None


class MistralFineTunedModel(ResponseModel):
    """The model of a job."""

    id: str
    object: Literal["model"] = "model"
    model_type: Literal["classifier"] = "classifier"
    created: int
    owned_by: str
    workspace_id: str
    root: str = Field(description="The model that was fine-tuned.")
    root_version: str
    archived: bool
    name: str | None
    description: str | None
    capabilities: MistralCapabilities = MistralCapabilities()
    max_context_length: int
    aliases: list[str]
    job: str
    classifier_targets: list[dict[str, Any]]


class MistralModelArchiveState(ResponseModel):
    """Whether the model is archived."""

    id: str
    object: Literal["model"] = "model"
    archived: bool
