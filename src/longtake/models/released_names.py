"""Names of parameters: the released checkpoints' and ours, as one list of renamings that works both ways."""

from __future__ import annotations

from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming

# Ordered: the longer released prefix first. Ours has one attribute per kind of tower, so that the way back is as
# unambiguous as the way in.
RENAMINGS: tuple[tuple[str, str], ...] = (
    ("model.vision_tower.vision_tower.encoder.", "umt."),
    ("model.vision_tower.vision_tower.", "internvideo2."),
    ("model.mm_projector.", "projector."),
    ("model.embed_tokens.", "language.embed_tokens."),
    ("model.layers.", "language.layers."),
    ("model.norm.", "language.norm."),
)


def to_ours(name: str) -> str:
    """Translate a released parameter name; a name of no known part is returned as it is."""
    for released, ours in RENAMINGS:
        if name.startswith(released):
            return ours + name.removeprefix(released)
    return name


def to_released(name: str) -> str:
    """Translate one of our parameter names to the released one."""
    for released, ours in RENAMINGS:
        if name.startswith(ours):
            return released + name.removeprefix(ours)
    return name


def register_renamings(*names: str) -> None:
    """Tell transformers about the renamings, under class names or model types; may be called twice."""
    mapping: list[WeightConverter | WeightRenaming] = [
        WeightRenaming("^" + released.replace(".", r"\."), "^" + ours.replace(".", r"\."))
        for released, ours in RENAMINGS
    ]
    for name in names:
        register_checkpoint_conversion_mapping(name, mapping, overwrite=True)
