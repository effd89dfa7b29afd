"""The certificate of an ONNX export, `certificate.json`. Needs no torch."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lora_core.specs.fields import Float, FrozenModel

CERTIFICATE_FILE = "certificate.json"


class OnnxCertificate(FrozenModel):
    """How close the exported file comes under ONNX Runtime to the predictions of loraworks."""

    precision: Literal["fp32", "int8"]
    texts: int = Field(description="Texts that both predicted.")
    longest_text: int = Field(description="Tokens of the longest one, or of its longest window.")
    largest_difference: Annotated[Float, Field(ge=0)] = Field(
        description="Largest absolute difference of a logit, or of a number in its own unit."
    )
    tolerance: Float | None = Field(
        description="The largest one that is accepted. Null in int8, where labels decide."
    )
    equal_labels: Annotated[Float, Field(ge=0, le=1)] | None = Field(
        description="Share of the texts with the same labels. Null for a model of numbers."
    )
    versions: dict[str, str]  # of the packages that made the file and computed its logits


def read_onnx_certificate(directory: Path) -> OnnxCertificate:
    """Return the certificate of an export."""
    return OnnxCertificate.model_validate_json((directory / CERTIFICATE_FILE).read_bytes())
