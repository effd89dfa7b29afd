"""How loraworks predicts with an exported model: `loraworks.json`, for what other formats lack."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, field_validator

from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.manifest import USAGE_FILE
from lora_core.specs.chat import PromptFormat
from lora_core.specs.data import LongTexts
from lora_core.specs.fields import Float, FrozenModel
from lora_core.specs.task import SeveralTargetsSpec, SingleLabelSpec, TaskSpec


class ExportedModelSettings(FrozenModel):
    """The task of a model, how it reads texts, and its `Calibration`: what the head cannot hold,
    such as thresholds by label, and what was folded into it."""

    task: TaskSpec = SingleLabelSpec()
    text_pairs: bool = False
    long_texts: LongTexts = Field(default="cut", exclude_if=lambda value: value == "cut")
    prompt_format: PromptFormat | None = Field(default=None, exclude_if=lambda value: value is None)
    thresholds: dict[str, Annotated[Float, Field(ge=0, le=1)]] = Field(
        default={}, exclude_if=lambda value: not value
    )
    half_width: Annotated[Float, Field(ge=0)] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    # Of a regression, and folded into its head: an import takes them out again, because logits are
    # compared with an absolute tolerance, which the rounding of large numbers exceeds.
    folded_scale: Annotated[Float, Field(gt=0)] = Field(
        default=1.0, exclude_if=lambda value: value == 1
    )
    folded_offset: Float = Field(default=0.0, exclude_if=lambda value: value == 0)
    fitted: bool = Field(default=True, exclude_if=bool)  # false: the calibration has defaults

    @field_validator("task")
    @classmethod
    def _one_target(cls, value: TaskSpec) -> TaskSpec:
        if isinstance(value, SeveralTargetsSpec):
            raise ValueError("other formats have one target")
        return value


def read_exported_model_settings(directory: Path) -> ExportedModelSettings:
    """Return what the file of an export says, or what holds for files of other programs.

    Raises `ArtifactCorrupt`.
    """
    try:
        return ExportedModelSettings.model_validate_json((directory / USAGE_FILE).read_bytes())
    except FileNotFoundError:
        return ExportedModelSettings()
    except ValidationError as error:
        problem = f"it is invalid ({error.errors()[0]['msg']})"
        raise ArtifactCorrupt(path=USAGE_FILE, problem=problem) from error
