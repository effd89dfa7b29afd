"""Find the parts of an encoder in a model, by the names of its family."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lora_core.encoders.base import EncoderFamily
from lora_core.errors.spec import RoleNotFound
from lora_core.specs.method import Role
from lora_core.specs.pooling import MARK


def is_pooled(config: Any) -> bool:
    """Whether the last block of a model with this config averages."""
    return bool(getattr(config, MARK, False))


def head_activation(family: EncoderFamily) -> Callable[[Tensor], Tensor]:
    """What stands between the two layers of the head."""
    return torch.relu if family.head_activation == "relu" else torch.tanh


def blocks(model: nn.Module, family: EncoderFamily) -> Sequence[nn.Module]:
    """The transformer blocks, first to last."""
    found = model.get_submodule(family.block_list)
    if not isinstance(found, nn.ModuleList):
        raise TypeError(f"{family.block_list} is not a list of blocks")
    return list(found)


def learned_blocks(model: nn.Module, family: EncoderFamily) -> Sequence[nn.Module]:
    """Those that were trained: all but the one that averages, see `pooling`."""
    found = blocks(model, family)
    return found[:-1] if is_pooled(model.config) else found


def linears(block: nn.Module, family: EncoderFamily, role: Role) -> Iterator[tuple[str, nn.Linear]]:
    """The layers of one block with this role, by path. Raises `RoleNotFound`."""
    found = dict(block.named_modules())
    paths = [path for path in family.roles.get(role, ()) if path in found]
    if not paths:
        available = ", ".join(r for r, names in family.roles.items() if set(names) & set(found))
        raise RoleNotFound(role=str(role), encoder=family.model_type, available=available)
    for path in paths:
        yield path, linear(block, path)


def linear(module: nn.Module, path: str) -> nn.Linear:
    """The linear layer at a path."""
    layer = module.get_submodule(path)
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"{path} is no linear layer")
    return layer
