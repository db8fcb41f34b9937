"""Still images in: upright RGB, whatever the file says it is."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from longtake.core.errors import VideoError

MAX_PIXELS = 100_000_000


class Picture(NamedTuple):
    """A picture as upright RGB uint8 [H, W, 3], and what of the file it does not show."""

    pixels: np.ndarray
    notes: tuple[str, ...] = ()


def read_image(source: str | Path | bytes | np.ndarray) -> np.ndarray:
    """Read a picture as upright RGB uint8 [H, W, 3]; `open_picture` also says what it leaves out.

    Raises: VideoError as `open_picture`.
    """
    return _from_array(source) if isinstance(source, np.ndarray) else open_picture(source).pixels


def open_picture(source: str | Path | bytes) -> Picture:
    """Read a picture upright, as RGB of 8 bits; of an animation or of several pages the first one.

    EXIF orientation is applied; palettes, CMYK, grey and 16-bit pictures are converted; transparency is laid on white.

    Raises: VideoError if it cannot be read, is cut short, or has more than MAX_PIXELS pixels.
    """
    name = "the picture" if isinstance(source, bytes) else str(source)
    opened = io.BytesIO(source) if isinstance(source, bytes) else Path(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is ours, below
            with Image.open(opened) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise VideoError(
                        f"{name} has {image.width} x {image.height} pixels; expected at most {MAX_PIXELS}; shrink it"
                    )
                return Picture(np.asarray(_to_rgb(ImageOps.exif_transpose(image))), _notes(image))
    except FileNotFoundError as error:
        raise VideoError(f"{name} does not exist; expected a picture; check the path") from error
    except (UnidentifiedImageError, OSError, EOFError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(
            f"{name} cannot be read as a picture ({error}); expected PNG, JPEG or WebP; check it"
        ) from error


def _notes(image: Image.Image) -> tuple[str, ...]:
    """Say what of an opened file is not shown."""
    count = int(getattr(image, "n_frames", 1))
    if count == 1 or image.format == "MPO":  # cameras put previews of a photograph behind it
        return ()
    return (f"the file holds {count} pictures and the first is shown; save it as a video to show them all",)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB; 16-bit grey is scaled down, not cut off."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image, dtype=np.float64)
        is_deep = image.mode.startswith("I;16") or grey.max(initial=0) > 255  # 32-bit files do not say their white
        top = 65535.0 if is_deep else 255.0
        return Image.fromarray((grey / top * 255).clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _from_array(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3 or 0 in pixels.shape:
        raise VideoError(f"a picture arrived as {pixels.dtype} {pixels.shape}; expected uint8 [H, W, 3]; convert it")
    return pixels
