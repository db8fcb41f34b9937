"""Refuse a model whose weights are not all there: checks that need no file, only the model and what was loaded."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from longtake.core.errors import CheckpointError
from longtake.models.released_names import to_ours, to_released

PARTS = {
    "umt": "vision tower",
    "internvideo2": "vision tower",
    "vision_model": "vision tower",
    "mlp1": "compressor",
    "projector": "projector",
    "language": "language model",
    "language_model": "language model",
}


def part_of(name: str) -> str:
    """Name the part of the model that a parameter belongs to; takes our or released names."""
    ours = to_ours(name)
    return PARTS.get(ours.split(".", 1)[0], "language model" if ours.startswith("lm_head.") else "unknown part")


def check_names(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], optional: Iterable[str] = ()
) -> None:
    """Compare released names and shapes: of the model, and of a checkpoint.

    `optional` names may be absent (a tied head).

    Raises: CheckpointError on a missing, unexpected or wrongly shaped tensor, with its name and the remedy.
    """
    missing = sorted(set(expected) - set(found) - set(optional))
    unexpected = sorted(set(found) - set(expected))
    if missing:
        raise CheckpointError(_missing_message(missing, unexpected, expected, found))
    if unexpected:
        close = difflib.get_close_matches(unexpected[0], sorted(expected), n=1, cutoff=0.0)
        nearest = f" (nearest known name: {close[0]})" if close else ""
        raise CheckpointError(
            f"{len(unexpected)} unknown tensors in the checkpoint, first: {unexpected[0]}{nearest}; expected only the "
            f"{len(expected)} of this architecture; check that config.json belongs to these weights, or remove them"
        )
    for name, shape in found.items():
        if tuple(shape) != tuple(expected[name]):
            raise CheckpointError(
                f"tensor {name} has shape {list(shape)}; expected {list(expected[name])}; config.json and the weights "
                "are of different sizes: take both from the same repository"
            )


def _missing_message(
    missing: list[str], unexpected: list[str], expected: Mapping[str, object], found: Mapping[str, object]
) -> str:
    first = missing[0]
    text = f"{len(missing)} of {len(expected)} tensors missing from the checkpoint, first: {first}"
    if not found:
        return f"{text}; the files hold no tensor at all; download the checkpoint again"
    known = {part_of(name) for name in set(found) & set(expected)}
    if len(known) == 1 and not known & {part_of(name) for name in missing}:
        only = known.pop()
        return (
            f"{text}; the file looks like a {only}-only checkpoint; expected a whole model; load the whole model and "
            f"put the {only} into it with load_state_dict"
        )
    if not known:
        return (
            f"{text}; none of the {len(found)} tensors found (first: {sorted(found)[0]}) belongs to this architecture; "
            "pass a checkpoint of this architecture"
        )
    close = difflib.get_close_matches(first, unexpected, n=1, cutoff=0.6)
    if close:
        return f"{text}; the checkpoint has {close[0]} instead, which looks renamed; rename it to {first}"
    return f"{text}; expected every tensor of the architecture; download the checkpoint again, all of its shards"


def check_values(tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Refuse tensors that are not finite, or zero throughout.

    Biases may be zero if all biases of their part are: that is a fresh initialisation, not a damaged file.

    Raises: CheckpointError with the name of the tensor.
    """
    zero_biases: dict[str, list[str]] = {}
    with_bias: set[str] = set()
    for name, tensor in tensors:
        if tensor.device.type == "meta" or tensor.numel() == 0 or type(tensor) not in (Tensor, nn.Parameter):
            continue  # offloaded, or packed by a quantizer whose tensors have no plain values
        part, is_bias = part_of(name), name.endswith("bias")
        low, high = (float(bound) for bound in torch.aminmax(tensor.detach()))
        if not (abs(low) < float("inf") and abs(high) < float("inf")):
            raise CheckpointError(
                f"tensor {name} {list(tensor.shape)} holds NaN or infinite values; expected finite numbers; download "
                f"the checkpoint again, or load it with a wider dtype than {tensor.dtype}"
            )
        if low == high == 0:
            if not is_bias:
                raise CheckpointError(
                    f"tensor {name} {list(tensor.shape)} is zero throughout; expected trained values; the file is "
                    "incomplete: download the checkpoint again"
                )
            zero_biases.setdefault(part, []).append(name)
        elif is_bias:
            with_bias.add(part)
    for part, names in zero_biases.items():
        if part in with_bias:
            raise CheckpointError(
                f"tensor {names[0]} is zero throughout while other biases of the {part} are not; expected trained "
                "values; the file is incomplete: download the checkpoint again"
            )


def check_loaded(model: nn.Module, info: Mapping[str, Any], released: Callable[[str], str] = to_released) -> None:
    """Check what transformers reports after loading, then every value; `released` translates names for messages.

    Raises: CheckpointError.
    """
    missing, unexpected = info["missing_keys"], info["unexpected_keys"]
    mismatched = {released(str(name)): tuple(shape) for name, shape, *_ in info["mismatched_keys"]}
    if missing or unexpected or mismatched:
        expected = {released(name): tuple(value.shape) for name, value in model.state_dict().items()}
        absent = {released(str(name)) for name in missing}
        found = {name: shape for name, shape in expected.items() if name not in absent}
        check_names(expected, found | {released(str(name)): () for name in unexpected} | mismatched)
    check_values((released(name), value) for name, value in model.named_parameters())
