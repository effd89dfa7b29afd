"""Access the parts of an encoder by the names of its family, and run them one by one."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lora_core.encoders import get_family
from lora_core.encoders.families import EncoderFamily, FastPathFamily
from lora_core.errors.spec import LayerRoleNotFound
from lora_core.specs.method import LayerRole
from lora_core.specs.pooling import POOLING_BLOCK_KEY

_HEAD_ACTIVATIONS: Mapping[str | None, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    None: lambda x: x,  # there is one layer
}


def family_of(model: Any) -> EncoderFamily:
    """Return the family of a classifier of transformers. Raises `UnsupportedEncoder`."""
    return get_family(model.config.to_dict())


def has_mean_pooling_block(config: Any) -> bool:
    """Return whether the last block of a model with this config is a mean pooling block."""
    return bool(getattr(config, POOLING_BLOCK_KEY, False))


def head_activation(family: EncoderFamily) -> Callable[[Tensor], Tensor]:
    """Return the activation before the last layer of the head."""
    return _HEAD_ACTIVATIONS[family.head_activation]


def is_exact_gelu(activation: Callable[[Tensor], Tensor]) -> bool:
    """Return whether this is the exact GELU, and not one of its approximations."""
    x = torch.linspace(-16, 16, 257)
    return torch.allclose(activation(x), F.gelu(x), atol=1e-6)


def blocks(model: nn.Module, family: EncoderFamily) -> Sequence[nn.Module]:
    """Return the transformer blocks, first to last."""
    module_list = model.get_submodule(family.block_list)
    if not isinstance(module_list, nn.ModuleList):
        raise TypeError(f"{family.block_list} is not a list of blocks")
    return list(module_list)


def pretrained_blocks(model: nn.Module, family: EncoderFamily) -> Sequence[nn.Module]:
    """Return the blocks that were pretrained: all except the mean pooling block, see `pooling`."""
    all_blocks = blocks(model, family)
    return all_blocks[:-1] if has_mean_pooling_block(model.config) else all_blocks


def linear_layers_with_role(
    block: nn.Module, family: EncoderFamily, role: LayerRole
) -> Iterator[tuple[str, nn.Linear]]:
    """Yield (path, layer) for the linear layers of a block with a role.

    Raises `LayerRoleNotFound`.
    """
    modules = dict(block.named_modules())
    paths = [path for path in family.roles.get(role, ()) if path in modules]
    if not paths:
        available = ", ".join(r for r, names in family.roles.items() if set(names) & set(modules))
        raise LayerRoleNotFound(role=str(role), encoder=family.model_type, available=available)
    for path in paths:
        yield path, get_linear_submodule(block, path)


def get_linear_submodule(module: nn.Module, path: str) -> nn.Linear:
    """Return the linear layer at a path."""
    layer = module.get_submodule(path)
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"{path} is not a linear layer")
    return layer


# -- Running parts of an encoder ------------------------------------------------------------------


def embedding_modules(model: nn.Module, family: FastPathFamily) -> Sequence[nn.Module]:
    """Return the modules before the first block, in order."""
    modules = [model.get_submodule(family.embeddings)]
    if family.embedding_projection is not None:
        parent, _, name = family.embedding_projection.rpartition(".")
        if hasattr(encoder := model.get_submodule(parent), name):
            modules.append(getattr(encoder, name))
    return modules


def run_embedding_modules(embeddings: Sequence[nn.Module], **inputs: Tensor) -> Tensor:
    """Return states (batch, length, width) before the first block, from `embedding_modules`.

    `inputs` are arguments of the embeddings, such as `input_ids` (batch, length).
    """
    first, *projection = embeddings
    x: Tensor = first(**inputs)
    for layer in projection:
        x = layer(x)
    return x


def expand_mask(attention_mask: Tensor) -> Tensor | None:
    """Return the keys that each query attends to, (batch, 1, 1, length). None: all, which is
    faster."""
    return None if bool(attention_mask.all()) else attention_mask[:, None, None].bool()


def run_blocks(blocks_to_run: Iterable[nn.Module], x: Tensor, mask: Tensor | None) -> Tensor:
    """Pass states (batch, length, width) through consecutive blocks."""
    for block in blocks_to_run:
        x = block(x, mask)
    return x


def count_leading_frozen_blocks(model: nn.Module, family: EncoderFamily) -> int:
    """Return the number of leading blocks without trained parameters in or below them."""
    elsewhere = tuple(f"{name}." for name in (family.block_list, *family.head_module_names))
    if any(p.requires_grad for n, p in model.named_parameters() if not n.startswith(elsewhere)):
        return 0
    trained = (any(p.requires_grad for p in b.parameters()) for b in blocks(model, family))
    return next((i for i, trains in enumerate(trained) if trains), len(blocks(model, family)))


def pool(model: Any, family: FastPathFamily, x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the input of the head, (batch, width), from the states after the last block.

    x (batch, length, width), or (batch, 1, width) if the last block computes only the first token.
    `mask` is (batch, 1, 1, length), true for the tokens of a text.
    """
    norm = nn.Identity() if family.final_norm is None else model.get_submodule(family.final_norm)
    if not has_mean_classifier_pooling(model.config, family):
        first: Tensor = norm(x[:, 0])
        return first
    x = norm(x)
    if mask is None:
        return x.mean(dim=1)
    return mean_of_seen(x, mask[:, 0, 0])


def mean_of_seen(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean (batch, width) of the states x (batch, length, width) of tokens in `mask`."""
    seen = mask[..., None]
    return (x * seen).sum(dim=1) / seen.sum(dim=1)


def has_mean_classifier_pooling(config: Any, family: EncoderFamily) -> bool:
    """Return whether the head of a model with this config reads the mean of all states."""
    return family.pooling_key is not None and getattr(config, family.pooling_key) == "mean"


def apply_head_activation_and_norm(model: Any, family: EncoderFamily, hidden: Tensor) -> Tensor:
    """Return the input of the last layer of the head from the output of the first."""
    hidden = head_activation(family)(hidden)
    if family.head_norm is not None:
        hidden = model.get_submodule(family.head_norm)(hidden)
    return hidden


# -- Gradient checkpointing -----------------------------------------------------------------------


def enable_gradient_checkpointing(model: nn.Module, family: EncoderFamily) -> None:
    """Store only the input of every block; recompute its activations in the backward pass.

    The results are identical, for one more forward pass, with less memory (Chen et al. 2016, arXiv
    1604.06174). Blocks without a backward pass are left as they are.
    The last block of a fast family is excluded: only one token of each text is computed in it
    (`first_token.py`).
    """
    all_blocks: list[Any] = list(blocks(model, family))
    end = len(all_blocks) - isinstance(family, FastPathFamily)
    for block in all_blocks[count_leading_frozen_blocks(model, family) : end]:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
