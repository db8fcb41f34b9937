"""Pictures become tokens, in the tiles that each model was trained on."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import UInt8

from longtake.core.budget import Budget
from longtake.core.errors import PromptError
from longtake.core.types import VideoMemory, VisualTokens
from longtake.engine.ledger import Ledger
from longtake.media.tiles import Tiling, num_tiles, tile_values
from longtake.media.transforms import anyres_grid, normalize_frames, pad_to_square, tile_image
from longtake.media.video import Video
from longtake.models.loaded import LoadedModel
from longtake.models.pvc_configuration import PvcConfig
from longtake.models.splice import Visual


def settings_of(model: LoadedModel, kind: str) -> dict[str, object]:
    """Return what shaped the tokens, as it is kept with a memory."""
    compressor = model.model.compressor
    return {"kind": kind, "model": model.fingerprint, "compressor": getattr(compressor, "fingerprint", lambda: "")()}


def tiling_of(config: PvcConfig, max_tiles: int | None = None) -> Tiling:
    """Return how a PVC model cuts pictures; `max_tiles` takes the place of the configuration's limit."""
    most = config.max_dynamic_patch if max_tiles is None else max_tiles
    most = most if config.dynamic_image_size else 1
    return Tiling(
        tile=config.vision_config.image_size,
        min_tiles=min(config.min_dynamic_patch, most),
        max_tiles=most,
        thumbnail=config.use_thumbnail,
    )


def num_entries(size_wh: tuple[int, int], config: object, side: int, max_tiles: int | None, *, is_alone: bool) -> int:
    """Return how many tiles a picture becomes, the whole picture counted where it is one of them."""
    if isinstance(config, PvcConfig):
        return num_tiles(size_wh, tiling_of(config, max_tiles))
    if not is_alone:
        return 1
    columns, rows = anyres_grid(size_wh, side, max_tiles=max_tiles)
    return columns * rows + 1


def picture_visual(
    pixels: UInt8[np.ndarray, "H W 3"], model: LoadedModel, max_tiles: int | None = None, *, is_alone: bool = True
) -> Visual:
    """Cut a picture into what a model is fed.

    Source: PVC shows every picture as tiles with a thumbnail behind them; VideoChat-Flash so only one that is alone,
        with the whole picture before them, and each of several padded to a square.
    """
    side = model.config.vision_config.image_size
    if isinstance(model.config, PvcConfig):
        return Visual(pixel_values=tile_values(pixels, tiling_of(model.config, max_tiles)), modality="image")
    if not is_alone:
        return Visual(pixel_values=normalize_frames(pad_to_square(pixels)[None], side), modality="image")
    tiles, grid = tile_image(pixels, side, max_tiles=max_tiles)
    return Visual(pixel_values=normalize_frames(tiles, side), modality="image", tile_grid=grid)


def check_tiles(video: Video, model: LoadedModel, max_tiles: int | None, room: int, *, is_alone: bool) -> None:
    """Refuse a picture whose tiles do not fit what is left of the context, before any of them is encoded.

    Raises: PromptError that says how many fit.
    """
    config, size = model.config, (video.info.width, video.info.height)
    side, repeats = config.vision_config.image_size, getattr(config, "image_repeat_time", 1)
    each = model.model.compressor.out_tokens(model.model.vision.grid(1)) * repeats
    count = num_entries(size, config, side, max_tiles, is_alone=is_alone)
    if count * each <= room:
        return
    fit = max(0, room // each)
    limits = (limit for limit in range(1, count) if num_entries(size, config, side, limit, is_alone=is_alone) <= fit)
    most = max(limits, default=0)
    advice = f"pass max_tiles {most}" if most else "show fewer files, or ask in fewer words"
    raise PromptError(
        f"{video.info.source} becomes {count} tiles of {each} tokens, and {fit} of them fit the {max(0, room)} tokens "
        f"that are left of the context of {config.context_length}; expected all of them to fit; {advice}"
    )


@torch.no_grad()
def ingest_picture(
    video: Video,
    model: LoadedModel,
    budget: Budget,
    ledger: Ledger,
    *,
    is_alone: bool = True,
    room: int | None = None,
) -> VideoMemory:
    """Turn a picture, opened as a video of one frame, into tokens.

    is_alone: whether the prompt shows nothing else. room: how many tokens of the context are left for it.

    Raises: PromptError as `check_tiles`.
    """
    ledger.note(f"device {model.device}, {str(model.dtype).removeprefix('torch.')}")
    if room is not None:
        check_tiles(video, model, budget.max_tiles, room, is_alone=is_alone)
    with ledger.stage("decode"):
        pixels = next(video.frames_at(np.zeros(1))).pixels[0]
    with ledger.stage("preprocess"):
        visual = picture_visual(pixels, model, budget.max_tiles, is_alone=is_alone)
    with ledger.stage("vision") as cost:
        tokens = torch.cat(model.model.visual_blocks(visual))
        cost.add(tokens=len(tokens))
    weight, clip = torch.ones(len(tokens), 1, dtype=torch.int64), torch.zeros(len(tokens), dtype=torch.int64)
    return VideoMemory(
        VisualTokens(tokens, weight, clip),
        np.zeros((1, 1)),
        0.0,
        video.info.source,
        settings_of(model, "image"),
        tuple(video.warnings),
    )
