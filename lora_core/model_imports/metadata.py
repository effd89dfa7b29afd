"""The metadata of an import, typed and bounded: manifest, metrics, labels, golden predictions.

Everything that the service reads of a version later is checked here, before a library reads a file.
"""

import json
import re
import unicodedata
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)

from lora_core import manifest
from lora_core.artifact_base_sharing import (
    BASE_FILES,
    CONFIG_FILE,
    TOKENIZER_FILE,
    join_classifier_config,
)
from lora_core.compatibility import read_encoder_shape
from lora_core.data.label_readers import MAX_LABEL_CHARACTERS, MAX_LABELS, MAX_NUMBER
from lora_core.encoders.safety import MAX_CONFIG_BYTES
from lora_core.errors.artifact import ArtifactCorrupt, InvalidImportedModel
from lora_core.linear.files import MODEL_FILES, count_weight_rows
from lora_core.linear.files import read_parameters as read_linear
from lora_core.model_imports import tokenizer
from lora_core.specs.chat import PromptFormat
from lora_core.specs.data import ColumnName, LongTexts
from lora_core.specs.encoded_labels import unqualified_outputs_of_target
from lora_core.specs.fields import BaseName
from lora_core.specs.task import (
    MAX_TARGET_CHARACTERS,
    MAX_TARGETS,
    SeveralTargetsSpec,
    SingleLabelSpec,
    TaskSpec,
)
from lora_core.specs.validation_problems import first_problem_location_and_message
from lora_core.tasks.base import parse_task_spec_and_calibration

_MAX_VALUE = 1e12  # of any metric
_MAX_ERROR = 10 * MAX_NUMBER  # of what is in the unit of a regression's numbers


def check_printable(text: str) -> str:
    """Return the text. Raises `ValueError` for control characters and lone surrogates."""
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        raise ValueError("must not contain control characters")
    return text


Label = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_LABEL_CHARACTERS),
    AfterValidator(check_printable),
]
Labels = Annotated[list[Label], Field(min_length=1, max_length=MAX_LABELS)]
# Of several targets, the outputs are named TARGET/LABEL; the labels of each are `Labels`.
MAX_OUTPUTS = MAX_TARGETS * MAX_LABELS
Output = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_TARGET_CHARACTERS + 1 + MAX_LABEL_CHARACTERS),
    AfterValidator(check_printable),
]
Outputs = Annotated[list[Output], Field(min_length=1, max_length=MAX_OUTPUTS)]
Number = Annotated[float, Field(ge=-_MAX_ERROR, le=_MAX_ERROR)]
Numbers = Annotated[list[Number], Field(max_length=MAX_LABELS)]
Correlation = Annotated[float, Field(ge=-1, le=1)]
Skill = Annotated[float, Field(ge=-_MAX_VALUE, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0, le=_MAX_VALUE)]
Distance = Annotated[float, Field(ge=0, le=_MAX_ERROR)]
Count = Annotated[int, Field(ge=0, le=10**15)]


class UntrustedSchema(BaseModel):
    """Base class for imported data. Unknown fields are dropped."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class UntrustedLabelMetrics(UntrustedSchema):
    precision: Share | None = None
    recall: Share | None = None
    f1: Share | None = None
    support: Count | None = None
    threshold: Share | None = None


class UntrustedSplitMetrics(UntrustedSchema):
    """Metrics of one split, such as validation."""

    loss: NonNegative | None = None
    accuracy: Share | None = None
    balanced_accuracy: Share | None = None
    macro_f1: Share | None = None
    micro_f1: Share | None = None
    map: Share | None = None
    hamming_loss: Share | None = None
    kappa: Correlation | None = None
    rmse: Distance | None = None
    mae: Distance | None = None
    r2: Skill | None = None
    spearman: Correlation | None = None
    skill: Skill | None = None
    per_class: (
        Annotated[dict[Label, UntrustedLabelMetrics], Field(max_length=MAX_LABELS)] | None
    ) = None
    confusion_matrix: Annotated[
        list[Annotated[list[Count], Field(max_length=MAX_LABELS)]], Field(max_length=MAX_LABELS)
    ] | None = None  # fmt: skip


class UntrustedSplitMetricsWithTargets(UntrustedSplitMetrics):
    """Metrics of one split, and of each of several targets."""

    targets: Annotated[dict[Label, UntrustedSplitMetrics], Field(max_length=MAX_LABELS)] | None = (
        None
    )


class UntrustedLinearMetrics(UntrustedSchema):
    """Metrics of the linear model."""

    validation: UntrustedSplitMetrics | None = None
    test: UntrustedSplitMetrics | None = None
    train_texts: Count | None = None
    seconds: NonNegative | None = None
    cached: bool | None = None


class UntrustedCalibrationMetrics(UntrustedSchema):
    loss: NonNegative | None = None
    ece: Share | None = None
    brier: NonNegative | None = None


class UntrustedSplitCalibrationMetrics(UntrustedSchema):
    texts: Count | None = None
    coverage: Share | None = None
    before: UntrustedCalibrationMetrics | None = None
    after: UntrustedCalibrationMetrics | None = None


class UntrustedTargetCalibration(UntrustedSchema):
    """What turns logits into scores: `Calibration`. Runs fit temperatures from 0.05 to 20."""

    temperature: float | None = Field(None, ge=0.01, le=100)
    fitted: bool | None = None
    scale: Numbers | None = None
    offset: Numbers | None = None
    thresholds: Annotated[list[Share], Field(max_length=MAX_LABELS)] | None = None
    half_width: Distance | None = None


class UntrustedCalibration(UntrustedTargetCalibration):
    """The calibration of a model, or of each of its targets, and how good it is."""

    targets: (
        Annotated[dict[Label, UntrustedTargetCalibration], Field(max_length=MAX_LABELS)] | None
    ) = None
    validation: UntrustedSplitCalibrationMetrics | None = None
    test: UntrustedSplitCalibrationMetrics | None = None


class UntrustedMetrics(UntrustedSchema):
    """The `metrics` that a run writes to the manifest."""

    labels: Outputs | None = None
    trainable_parameters: Count | None = None
    total_parameters: Count | None = None
    examples: Annotated[
        dict[Annotated[str, StringConstraints(max_length=16)], Count], Field(max_length=8)
    ] | None = None  # fmt: skip
    truncated_share: Share | None = None
    terms: Count | None = None
    steps: Count | None = None
    best_step: Count | None = None
    epochs_run: NonNegative | None = None
    stopped_early: bool | None = None
    learning_rate: NonNegative | None = None
    train_seconds: NonNegative | None = None
    features_found: bool | None = None
    reviews_per_second: NonNegative | None = None
    tokens_per_second: NonNegative | None = None
    peak_memory_mb: NonNegative | None = None
    linear: UntrustedLinearMetrics | None = None
    calibration: UntrustedCalibration | None = None
    train: UntrustedSplitMetricsWithTargets | None = None
    validation: UntrustedSplitMetricsWithTargets | None = None
    test: UntrustedSplitMetricsWithTargets | None = None
    merge_difference: NonNegative | None = None
    total_seconds: NonNegative | None = None


def parse_metrics_or_empty(metrics: Any) -> dict[str, Any]:
    """Return the metrics of a version imported before metrics were checked; {} if invalid."""
    try:
        return UntrustedMetrics.model_validate(metrics).model_dump(exclude_unset=True)
    except ValidationError:
        return {}


# -- Files of a model directory -------------------------------------------------------------------

# Without lists of integers. The longest labels take 2 MB: they are listed up to seven times.
MAX_MANIFEST_BYTES = 4_000_000
MAX_MANIFEST_FILE_BYTES = 12_000_000  # each of three confusion matrices of `MAX_LABELS` has 2 MB
_INTEGERS = re.compile(rb"(?<![\d.])\d++(?:,\s*+\d++(?![\d.]))++")  # in a list; takes linear time
MAX_NESTING = 16  # levels of the manifest; our own has 6
MAX_GOLDEN_TEXTS = 64  # a run stores 16
MAX_GOLDEN_BYTES = 8_000_000
_ENCODER_FILES = (".safetensors", "config.json", "tokenizer.json")
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_ModelT = TypeVar("_ModelT", bound=BaseModel)


class UntrustedMethod(UntrustedSchema):
    """The training method."""

    type: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]


class UntrustedDataSpec(UntrustedSchema):
    """What the model reads. `PromptFormat` bounds its phrases."""

    text_pair_column: ColumnName | None = None
    long_texts: LongTexts = "cut"
    prompt_format: PromptFormat | None = None


class UntrustedSpec(UntrustedSchema):
    """Base model, method, task and data."""

    base: Annotated[BaseName, AfterValidator(check_printable)] | None
    method: UntrustedMethod
    task: TaskSpec = SingleLabelSpec()
    data: UntrustedDataSpec = UntrustedDataSpec()


class UntrustedFileEntry(UntrustedSchema):
    bytes: Count
    sha256: Digest


class UntrustedManifest(UntrustedSchema):
    """The fields of the manifest that the service uses."""

    format: int = Field(ge=1, le=manifest.FORMAT_VERSION)
    spec: UntrustedSpec
    max_length: int | None = Field(default=None, ge=8, le=8192)  # None: a linear model
    base_sha256: Digest | None = None
    labels: Outputs | None = None
    calibration: UntrustedCalibration | None = None
    metrics: dict[str, Any]
    files: Annotated[dict[str, UntrustedFileEntry], Field(max_length=100)]

    @field_validator("metrics", mode="before")
    @classmethod
    def _bound_metrics(cls, metrics: Any) -> dict[str, Any]:
        return UntrustedMetrics.model_validate(metrics).model_dump(exclude_unset=True)


class UntrustedGoldenRow(UntrustedSchema):
    """A text and the float32 logits of the merged model."""

    text: Annotated[str, StringConstraints(min_length=1)]
    text_pair: Annotated[str, StringConstraints(min_length=1)] | None = None
    logits: Annotated[
        list[Annotated[float, Field(ge=-1e6, le=1e6)]], Field(max_length=MAX_OUTPUTS)
    ]  # fmt: skip


class UntrustedGoldenPredictions(UntrustedSchema):
    rows: Annotated[list[UntrustedGoldenRow], Field(min_length=1, max_length=MAX_GOLDEN_TEXTS)]


def check_manifest_size(directory: Path) -> None:
    """Raise `InvalidImportedModel` if the manifest is too large to be read."""
    listing = directory / manifest.MANIFEST_FILE
    if not listing.is_file() or (size := listing.stat().st_size) <= MAX_MANIFEST_BYTES:
        return
    if size > MAX_MANIFEST_FILE_BYTES:
        raise InvalidImportedModel(
            problem=f"its manifest is larger than {MAX_MANIFEST_FILE_BYTES:,} bytes"
        )
    if len(_INTEGERS.sub(b"", listing.read_bytes())) > MAX_MANIFEST_BYTES:
        raise InvalidImportedModel(
            problem=f"its manifest is larger than {MAX_MANIFEST_BYTES:,} bytes, not counting lists "
            "of integers"
        )


def validate_model_metadata(directory: Path, base: Path | None = None) -> UntrustedManifest:
    """Read the metadata of a model directory and check its consistency, but not its digests.

    `base` is the directory of its base, if that is elsewhere. Does not import torch. Raises
    `InvalidImportedModel`, `UnsupportedTokenizer`, `ArtifactCorrupt` without a manifest or with a
    config that does not fit its base, and what `read_encoder_shape` raises.
    """
    check_manifest_size(directory)
    content = manifest.read(directory)
    if not _is_nested_within(content, MAX_NESTING):
        raise InvalidImportedModel(
            problem=f"its manifest is nested more than {MAX_NESTING} levels deep"
        )
    facts = _validate(UntrustedManifest, content, "its manifest")
    for name, file in facts.files.items():
        if (directory / name).is_file() and (directory / name).stat().st_size != file.bytes:
            raise InvalidImportedModel(problem=f"its manifest has a wrong size of {name}")
    if manifest.is_linear(facts.files):
        _check_linear(directory, content, facts)
    else:
        _check_encoder(directory, content, facts, base)
    return facts


def _check_linear(directory: Path, content: dict[str, Any], facts: UntrustedManifest) -> None:
    if facts.labels is None or len(set(facts.labels)) != len(facts.labels):
        raise InvalidImportedModel(problem="its manifest has no labels, or duplicate ones")
    own = {*MODEL_FILES, *manifest.NEAREST_EXAMPLES_FILES}
    if odd := [name for name in facts.files if name not in own and _is_of_encoder(name)]:
        raise InvalidImportedModel(problem=f"it is a linear model, but has {odd[0]}")
    _check_task(content, facts, facts.labels)
    pairs = facts.spec.data.text_pair_column is not None
    _check_golden(directory, len(facts.labels), pairs=pairs)
    single_label = isinstance(facts.spec.task, SingleLabelSpec)
    rows = count_weight_rows(len(facts.labels), single_label=single_label)
    if read_linear(directory, rows).pairs != pairs:
        raise InvalidImportedModel(
            problem="only one of its manifest and its linear.json describes a model of text pairs"
        )


def _check_task(content: dict[str, Any], facts: UntrustedManifest, labels: list[str]) -> None:
    """Raise unless the labels and the calibration are those of the task."""
    task = facts.spec.task
    targets = task.targets if isinstance(task, SeveralTargetsSpec) else ()
    for of_task in [list(unqualified_outputs_of_target(name, labels)) for name in targets] or [
        labels
    ]:
        _validate(UntrustedLabels, {"labels": of_task}, "its task")
    if isinstance(task, SingleLabelSpec) and len(labels) < 2:
        raise InvalidImportedModel(problem="it has fewer than two labels")
    try:
        parse_task_spec_and_calibration(content, labels)
    except ArtifactCorrupt as error:
        raise InvalidImportedModel(problem=error.detail["problem"]) from error


def _is_of_encoder(name: str) -> bool:
    return name.endswith(_ENCODER_FILES) or name.startswith(
        (f"{manifest.BASE_DIR}/", f"{manifest.MERGED_DIR}/")
    )


def _check_encoder(
    directory: Path, content: dict[str, Any], facts: UntrustedManifest, base: Path | None
) -> None:
    if facts.max_length is None or facts.spec.base is None:
        raise InvalidImportedModel(problem="its manifest has no max_length, or no base")
    data = facts.spec.data
    if data.text_pair_column is not None and data.long_texts == "windows":
        raise InvalidImportedModel(problem="it reads pairs of texts in windows")
    folders = {name.partition("/")[0] for name in facts.files if "/" in name}
    if folders >= {manifest.MERGED_DIR, manifest.BASE_DIR}:
        raise InvalidImportedModel(problem="it has both a merged checkpoint and a base")
    in_base = {name for name in facts.files if name.startswith(f"{manifest.BASE_DIR}/")}
    if others := sorted(in_base - {f"{manifest.BASE_DIR}/{name}" for name in BASE_FILES}):
        raise InvalidImportedModel(problem=f"it has {others[0]}")
    if manifest.MERGED_DIR in folders:
        checkpoint = directory / manifest.MERGED_DIR
        config = _read_object(checkpoint, CONFIG_FILE)
    else:
        checkpoint = base or directory / manifest.BASE_DIR
        config = _read_object(checkpoint, CONFIG_FILE)
        config = join_classifier_config(config, _read_object(directory, manifest.CLASSIFIER_FILE))
    if facts.labels not in (None, labels := _config_labels(config)):
        raise InvalidImportedModel(problem="its manifest and its config have different labels")
    _check_task(content, facts, labels)
    _check_golden(directory, len(labels), pairs=data.text_pair_column is not None)
    largest_id = tokenizer.validate_tokenizer_get_max_id(checkpoint / TOKENIZER_FILE)
    shape = read_encoder_shape(config, base=checkpoint.name)
    if facts.max_length > shape.max_tokens:
        raise InvalidImportedModel(problem="max_length exceeds the positions of its encoder")
    if largest_id >= shape.vocabulary:  # on a GPU an out-of-range id would crash all models
        raise InvalidImportedModel(problem="its tokenizer has more tokens than its encoder")


def _check_golden(directory: Path, labels: int, *, pairs: bool) -> None:
    answers = _read_json(directory, "golden.json", MAX_GOLDEN_BYTES)
    golden = _validate(UntrustedGoldenPredictions, {"rows": answers}, "golden.json").rows
    if any(len(row.logits) != labels for row in golden):
        raise InvalidImportedModel(
            problem="golden.json has a different number of labels than the model"
        )
    if any((row.text_pair is not None) != pairs for row in golden):
        raise InvalidImportedModel(
            problem="golden.json has pairs of texts and the manifest single texts, or the reverse"
        )


def _config_labels(config: dict[str, Any]) -> list[str]:
    """Return the labels in the order of the logits."""
    names = config.get("id2label", manifest.DEFAULT_ID2LABEL)
    if not isinstance(names, dict) or set(names) != {str(i) for i in range(len(names))}:
        raise InvalidImportedModel(problem="its config does not number its labels from 0")
    labels = [names[str(i)] for i in range(len(names))]
    validated = _validate(UntrustedConfigLabels, {"labels": labels}, "its config").labels
    if len(set(validated)) != len(validated):
        raise InvalidImportedModel(problem="its labels are not distinct names")
    return validated


class UntrustedLabels(UntrustedSchema):
    labels: Labels


class UntrustedConfigLabels(UntrustedSchema):
    labels: Outputs


def _read_object(directory: Path, name: str) -> dict[str, Any]:
    content = _read_json(directory, name, MAX_CONFIG_BYTES)
    if not isinstance(content, dict):
        raise InvalidImportedModel(problem=f"{name} is not an object")
    return content


def _read_json(directory: Path, name: str, max_bytes: int) -> Any:
    try:
        if (directory / name).stat().st_size > max_bytes:
            raise InvalidImportedModel(problem=f"{name} is larger than {max_bytes:,} bytes")
        return json.loads((directory / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidImportedModel(problem=f"{name} cannot be read") from error


def _is_nested_within(value: Any, levels: int) -> bool:
    children = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    )
    return levels > 0 and all(_is_nested_within(child, levels - 1) for child in children)


def _validate(model_class: type[_ModelT], content: Any, where: str) -> _ModelT:
    try:
        return model_class.model_validate(content)
    except ValidationError as error:
        location, message = first_problem_location_and_message(error, model_class)
        raise InvalidImportedModel(
            problem=f"{where} has an invalid {location}: {message}"
        ) from error
