"""The files of a PEFT adapter: what is in them, and which layers its config means.

Written after `peft` 0.21.2, which is not needed to read them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lora_core.errors.adapter import AdapterNotFound, AdapterSetting
from lora_core.errors.base import UnsafeWeights
from lora_core.specs.frozen import Int
from lora_core.specs.method import Variant
from lora_core.specs.validation import first_fault

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"  # never opened
PREFIX = "base_model.model."  # before every name in WEIGHTS
A, B, MAGNITUDE = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"

# Settings that change what an adapter computes, or what its files hold, and are not read here. Of
# one that a later version adds, anything but nothing counts as such a change.
DEFAULTS: Mapping[str, Any] = {
    "bias": "none",
    "fan_in_fan_out": False,
    "exclude_modules": None,
    "auto_mapping": None,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "trainable_token_indices": None,
    "loftq_config": {},
    "eva_config": None,
    "corda_config": None,
    "lora_ga_config": None,
    "velora_config": None,
    "alora_invocation_tokens": None,
    "use_qalora": False,
    "qalora_group_size": 16,
    "monteclora_config": None,
    "layer_replication": None,
    "lora_bias": False,
    "target_parameters": None,
    "use_bdlora": None,
    "arrow_config": None,
    "kasa_config": None,
    "ensure_weight_tying": False,
}
_WITHOUT_MEANING = {"inference_mode", "peft_version"}

Rank = Annotated[Int, Field(ge=1, le=4096)]
Alpha = Annotated[float, Field(gt=0, le=1e9)]
Names = str | list[str]
Number = TypeVar("Number", int, float)


class AdapterConfig(BaseModel):
    """What `adapter_config.json` says, as far as it can be imported."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    peft_type: Literal["LORA"]
    task_type: Literal["SEQ_CLS"]
    base_model_name_or_path: str | None = None
    revision: str | None = None
    r: Rank = 8
    lora_alpha: Alpha = 8
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    use_rslora: bool = False
    use_dora: bool = False
    # How A and B were drawn. The others move a part of the base's weights into the adapter.
    init_lora_weights: bool | Literal["gaussian", "orthogonal"] = True
    target_modules: Names
    layers_to_transform: int | list[int] | None = None
    layers_pattern: Names | None = None
    modules_to_save: list[str] | None = None
    rank_pattern: dict[str, Rank] = {}
    alpha_pattern: dict[str, Alpha] = {}

    def adapts(self, name: str) -> bool:
        """Whether the linear layer of this name has an adapter."""
        if any(re.match(rf"(^|.*\.){module}($|\..*)", name) for module in self.saved):
            return False
        if isinstance(self.target_modules, str):
            everything = self.target_modules.lower() == "all-linear"
            return everything or bool(re.fullmatch(self.target_modules, name))
        if not any(name == t or name.endswith(f".{t}") for t in self.target_modules):
            return False
        return self.layers_to_transform in (None, []) or self._layer(name) in _list(
            self.layers_to_transform
        )

    @property
    def variant(self) -> Variant:
        """The kind of layer. DoRA may have the scale of rsLoRA as well."""
        if self.use_dora:
            return Variant.DORA
        return Variant.RSLORA if self.use_rslora else Variant.LORA

    @property
    def saved(self) -> Sequence[str]:
        """Parts of the model that the adapter holds in full; with SEQ_CLS always the classifier."""
        return [*(self.modules_to_save or ()), "classifier", "score"]

    def rank(self, name: str) -> int:
        """r of the adapter of this layer."""
        return _by_pattern(self.rank_pattern, name, self.r)

    def alpha(self, name: str) -> float:
        """`lora_alpha` of the adapter of this layer."""
        return _by_pattern(self.alpha_pattern, name, self.lora_alpha)

    def _layer(self, name: str) -> int | None:
        """The number in a name that the patterns take for that of its block."""
        for pattern in _list(self.layers_pattern or r"[^.]*"):
            if match := re.match(rf"(?:^|.*?\.){pattern}\.(?P<index>\d+)\.", name):
                return int(match["index"])
        return None


def read_config(directory: Path) -> AdapterConfig:
    """The config of an adapter whose files are safe to read.

    Raises `AdapterNotFound`, `UnsafeWeights`, `AdapterSetting`.
    """
    path = directory / CONFIG
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        names = [file.name for file in directory.iterdir()]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AdapterNotFound(path=directory.name, problem=f"there is no {CONFIG}") from error
    except ValueError as error:
        raise AdapterNotFound(path=directory.name, problem=f"{CONFIG} is not JSON") from error
    if not isinstance(said, dict):
        raise AdapterNotFound(path=directory.name, problem=f"{CONFIG} is not an object")
    if WEIGHTS not in names:
        if PICKLED in names:
            raise UnsafeWeights(base=directory.name, found=PICKLED)
        raise AdapterNotFound(path=directory.name, problem=f"there is no {WEIGHTS}")
    return _checked(said)


def _checked(said: dict[str, Any]) -> AdapterConfig:
    try:
        config = AdapterConfig.model_validate(said)
        for pattern in (*config.rank_pattern, *config.alpha_pattern, *config.saved):
            re.compile(pattern)
        config.adapts("a.0.b")
    except ValidationError as error:
        place, fault = first_fault(error, AdapterConfig)
        raise _setting(place.split(".")[0], said, fault) from error
    except re.error as error:
        raise _setting(
            "target_modules", said, f"a pattern in it cannot be read: {error}"
        ) from error
    for key, value in (config.model_extra or {}).items():
        usual = value == DEFAULTS[key] if key in DEFAULTS else not value
        if not usual and key not in _WITHOUT_MEANING:
            default = json.dumps(DEFAULTS.get(key))
            raise _setting(key, said, f"only its default, {default}, can be imported")
    return config


def _setting(key: str, said: Mapping[str, Any], problem: str) -> AdapterSetting:
    value = json.dumps(said.get(key), ensure_ascii=False)[:100]
    return AdapterSetting(key=key, value=value, problem=problem)


def _by_pattern(patterns: Mapping[str, Number], name: str, default: Number) -> Number:
    """The value of the first pattern that fits the end of a name."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return default


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
