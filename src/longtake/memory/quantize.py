"""Tokens in few bytes: as they are, in half precision, or as int8 with a scale for each token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from longtake.core.config import nearest_name
from longtake.core.errors import ConfigError, MemoryFormatError

Store = Literal["float32", "float16", "bfloat16", "int8"]
STORES: tuple[Store, ...] = get_args(Store)
INT8_MAX = 127


def find_store(name: str, dtype: torch.dtype) -> Store:
    """Return how tokens are to be stored; `auto` is the model's own dtype, which loses nothing.

    Raises: ConfigError for an unknown name.
    """
    wanted = str(dtype).removeprefix("torch.") if name == "auto" else name
    for store in STORES:
        if store == wanted:
            return store
    raise ConfigError(f"tokens cannot be stored as {wanted!r}; {nearest_name(wanted, [*STORES, 'auto'])}")


def to_int8(features: Float[Tensor, "N D"]) -> tuple[Int8[Tensor, "N D"], Float[Tensor, "N"]]:
    """Round each token to 255 steps between plus and minus its largest value; the scale is one step."""
    wide = features.float()
    scale = wide.abs().amax(1) / INT8_MAX
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (wide / scale.unsqueeze(1)).round().clamp(-INT8_MAX, INT8_MAX).to(torch.int8), scale


def pack_tokens(features: Float[Tensor, "N D"], store: Store) -> dict[str, Tensor]:
    """Return the tensors that tokens are stored as.

    Raises: MemoryFormatError if a value is not finite, or not any more.
    """
    packed: dict[str, Tensor]
    if store == "int8":
        tokens, scales = to_int8(features)
        packed = {"tokens": tokens, "scales": scales}
    else:
        packed = {"tokens": features.to(getattr(torch, store)).contiguous()}
    if not all(values.isfinite().all() for values in (features, *packed.values())):
        raise MemoryFormatError(
            f"tokens with values up to {float(features.abs().max()):.3g} in {features.dtype} cannot be stored as "
            f"{store}; expected finite numbers; store them as bfloat16 or int8, or load the model in a wider dtype"
        )
    return packed


def unpack_tokens(packed: Mapping[str, Tensor], dtype: torch.dtype) -> Float[Tensor, "N D"]:
    """Return the tokens in the dtype asked for."""
    tokens = packed["tokens"]
    if tokens.dtype == torch.int8:
        return (tokens.float() * packed["scales"].unsqueeze(1)).to(dtype)
    return tokens.to(dtype)


def relative_error(features: Float[Tensor, "N D"], packed: Mapping[str, Tensor]) -> float:
    """Measure what storing lost: the root mean square of the difference over that of the tokens."""
    wide = features.float()
    lost = unpack_tokens(packed, torch.float32) - wide
    return float(lost.norm() / wide.norm().clamp_min(torch.finfo(torch.float32).tiny))
