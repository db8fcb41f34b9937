"""Still images in: upright RGB, whatever the file says it is."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from longtake.core.errors import VideoError

MAX_PIXELS = 100_000_000


def read_image(source: str | Path | bytes | np.ndarray) -> np.ndarray:
    """Read a picture as upright RGB uint8 [H, W, 3]; of an animation the first frame.

    EXIF orientation is applied; palettes, CMYK, grey and 16-bit pictures are converted; transparency is laid on white.

    Raises: VideoError if it cannot be read, is cut short, or has more than MAX_PIXELS pixels.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
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
                return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))
    except FileNotFoundError as error:
        raise VideoError(f"{name} does not exist; expected a picture; check the path") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(
            f"{name} cannot be read as a picture ({error}); expected PNG, JPEG or WebP; check it"
        ) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB; 16-bit grey is scaled down, not cut off."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image, dtype=np.float64)
        top = 65535.0 if grey.max(initial=0) > 255 else 255.0
        return Image.fromarray((grey / top * 255).clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _from_array(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3 or 0 in pixels.shape:
        raise VideoError(f"a picture arrived as {pixels.dtype} {pixels.shape}; expected uint8 [H, W, 3]; convert it")
    return pixels
