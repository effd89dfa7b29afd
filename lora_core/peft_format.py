"""The file format of PEFT adapters: file names, config, and which layers a config selects.

It follows `peft` 0.21.2, which is not needed to read the files.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import regex
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lora_core.errors.adapter import AdapterNotFound, UnsupportedAdapterSetting
from lora_core.errors.base_model import UnsafeWeights
from lora_core.specs.fields import Int
from lora_core.specs.method import LoraVariant
from lora_core.specs.validation_problems import first_problem_location_and_message

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PICKLE_FILE = "adapter_model.bin"  # never opened
TENSOR_PREFIX = "base_model.model."  # of every name in WEIGHTS_FILE
A, B, MAGNITUDE = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"

# Settings that change what an adapter computes or what its files contain. Only their defaults are
# supported. A setting that a later version of PEFT adds must be empty.
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
_IGNORED_SETTINGS = {"inference_mode", "peft_version"}

Rank = Annotated[Int, Field(ge=1, le=4096)]
Alpha = Annotated[float, Field(gt=0, le=1e9)]
ModuleNames = str | list[str]
_NumberT = TypeVar("_NumberT", int, float)


class AdapterConfig(BaseModel):
    """The supported settings in `adapter_config.json`."""

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
    # How A and B were initialized. Other methods move a part of the base weights into the adapter.
    init_lora_weights: bool | Literal["gaussian", "orthogonal"] = True
    target_modules: ModuleNames
    layers_to_transform: int | list[int] | None = None
    layers_pattern: ModuleNames | None = None
    modules_to_save: list[str] | None = None
    rank_pattern: dict[str, Rank] = {}
    alpha_pattern: dict[str, Alpha] = {}

    def adapts(self, name: str) -> bool:
        """Return whether the linear layer with this name has an adapter.

        This, `rank` and `alpha` raise `UnsupportedAdapterSetting` for a pattern that is slow.
        """
        if any(_match(_saved_module(module), name) for module in self.saved_modules):
            return False
        if isinstance(self.target_modules, str):
            all_linear = self.target_modules.lower() == "all-linear"
            return all_linear or bool(_match(self.target_modules, name, whole=True))
        if name in self.target_modules:  # whatever the layers to transform
            return True
        if not any(name.endswith(f".{t}") for t in self.target_modules):
            return False
        return self.layers_to_transform in (None, []) or self._layer(name) in _as_list(
            self.layers_to_transform
        )

    @property
    def variant(self) -> LoraVariant:
        """The LoRA variant. DoRA can be combined with the scale of rsLoRA."""
        if self.use_dora:
            return LoraVariant.DORA
        return LoraVariant.RSLORA if self.use_rslora else LoraVariant.LORA

    @property
    def saved_modules(self) -> Sequence[str]:
        """Modules that the adapter saves in full; with SEQ_CLS always the classifier."""
        return [*(self.modules_to_save or ()), "classifier", "score"]

    def rank(self, name: str) -> int:
        """Return r for this layer."""
        return _by_pattern(self.rank_pattern, name, self.r)

    def alpha(self, name: str) -> float:
        """Return `lora_alpha` for this layer."""
        return _by_pattern(self.alpha_pattern, name, self.lora_alpha)

    def _layer(self, name: str) -> int | None:
        """Return the block number in a layer name, as `layers_pattern` finds it."""
        for pattern in _as_list(self.layers_pattern or r"[^.]*"):
            match = _match(_block(pattern), name)
            if match is not None and (index := match[match.re.groups]) is not None:
                return int(index)
        return None


def read_adapter_config(directory: Path) -> AdapterConfig:
    """Read the config of an adapter whose files are safe to read.

    Raises `AdapterNotFound`, `UnsafeWeights`, `UnsupportedAdapterSetting`.
    """
    path = directory / CONFIG_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = [file.name for file in directory.iterdir()]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AdapterNotFound(path=directory.name, problem=f"there is no {CONFIG_FILE}") from error
    except (ValueError, RecursionError) as error:
        raise AdapterNotFound(path=directory.name, problem=f"{CONFIG_FILE} is not JSON") from error
    if not isinstance(content, dict):
        raise AdapterNotFound(path=directory.name, problem=f"{CONFIG_FILE} is not an object")
    if WEIGHTS_FILE not in names:
        if PICKLE_FILE in names:
            raise UnsafeWeights(base=directory.name, found=PICKLE_FILE)
        raise AdapterNotFound(path=directory.name, problem=f"there is no {WEIGHTS_FILE}")
    return _validate(content)


def _validate(content: dict[str, Any]) -> AdapterConfig:
    try:
        config = AdapterConfig.model_validate(content)
        _compile_patterns(config)
    except ValidationError as error:
        place, fault = first_problem_location_and_message(error, AdapterConfig)
        raise _setting_error(place.split(".")[0], content, fault) from error
    except (regex.error, RecursionError) as error:
        raise _setting_error(
            "target_modules", content, f"it contains an invalid pattern: {error}"
        ) from error
    for key, value in (config.model_extra or {}).items():
        usual = value == DEFAULTS[key] if key in DEFAULTS else not value
        if not usual and key not in _IGNORED_SETTINGS:
            default = json.dumps(DEFAULTS.get(key))
            raise _setting_error(key, content, f"only its default, {default}, can be imported")
    return config


def _setting_error(key: str, content: Mapping[str, Any], problem: str) -> UnsupportedAdapterSetting:
    value = json.dumps(content.get(key), ensure_ascii=False)[:100]
    return UnsupportedAdapterSetting(key=key, value=value, problem=problem)


# -- Patterns, as PEFT extends them ---------------------------------------------------------------

PATTERN_SECONDS = 1.0  # for one name. `re` has no such limit, and some patterns take it years


def _saved_module(pattern: str) -> str:
    return rf"(^|.*\.){pattern}($|\..*)"


def _block(pattern: str) -> str:
    return rf"(?:^|.*?\.){pattern}\.(\d+)\."  # the last group, whichever groups the pattern has


def _end_of_name(pattern: str) -> str:
    return rf"(.*\.)?({pattern})$"


def _compile_patterns(config: AdapterConfig) -> None:
    """Compile all patterns. Raises `regex.error`, `RecursionError`."""
    for pattern in config.saved_modules:
        regex.compile(_saved_module(pattern))
    for pattern in _as_list(config.layers_pattern or []):
        regex.compile(_block(pattern))
    for pattern in (*config.rank_pattern, *config.alpha_pattern):
        regex.compile(_end_of_name(pattern))
    if isinstance(config.target_modules, str):
        regex.compile(config.target_modules)


def _match(pattern: str, name: str, *, whole: bool = False) -> Any:
    """Return the match at the start of a name or with the whole, or None.

    Raises `UnsupportedAdapterSetting`.
    """
    match = regex.fullmatch if whole else regex.match
    try:
        return match(pattern, name, timeout=PATTERN_SECONDS)
    except TimeoutError as error:
        problem = f"a pattern takes more than {PATTERN_SECONDS:g} s for one name"
        raise UnsupportedAdapterSetting(
            key="target_modules", value=pattern[:100], problem=problem
        ) from error


def _by_pattern(patterns: Mapping[str, _NumberT], name: str, default: _NumberT) -> _NumberT:
    """Return the value of the first pattern that matches the end of a name."""
    for pattern, value in patterns.items():
        if _match(_end_of_name(pattern), name):
            return value
    return default


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
