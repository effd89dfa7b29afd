"""Which engines there are on this machine."""

from lora_core.processor import has_fast_bf16


def engines() -> list[str]:
    """The fastest first."""
    return ["torch-bf16", "torch-fp32"] if has_fast_bf16() else ["torch-fp32"]
