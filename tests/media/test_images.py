from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from longtake.core.errors import VideoError
from longtake.media import images
from longtake.media.images import open_picture, read_image
from longtake.media.transforms import anyres_grid
from longtake.media.video import open_video

RNG = np.random.default_rng(5)
PIXELS = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **given) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **given)
    return out.getvalue()


@pytest.mark.parametrize(("kind", "given"), [("PNG", {}), ("WEBP", {"lossless": True}), ("BMP", {})])
def test_lossless_pictures_come_back_as_they_were(kind: str, given: dict, tmp_path: Path):
    data = encoded(Image.fromarray(PIXELS), kind, **given)
    path = tmp_path / "picture"
    path.write_bytes(data)
    for source in (data, path, str(path)):
        assert np.array_equal(read_image(source), PIXELS)


def test_an_array_passes_through():
    assert np.array_equal(read_image(PIXELS), PIXELS)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_camera_orientation_is_applied(orientation: int):
    smooth = np.zeros((16, 32, 3), np.uint8)
    smooth[:8, :16] = 255  # bright in the upper left of what is stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = read_image(encoded(Image.fromarray(smooth), "PNG", exif=exif))
    corner = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}[orientation]
    assert upright.shape[:2] == ((16, 32) if orientation < 5 else (32, 16))
    rows, columns = upright.shape[0] // 4, upright.shape[1] // 4
    row = rows if corner[0] == "t" else -rows
    column = columns if corner[1] == "l" else -columns
    assert upright[row, column, 0] == 255
    assert upright[-row, -column, 0] == 0


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_any_mode_becomes_rgb(mode: str):
    image = Image.fromarray(PIXELS).convert(mode)
    is_jpeg = mode in ("CMYK", "YCbCr")  # PNG has no such modes
    pixels = read_image(encoded(image, "JPEG", quality=100, subsampling=0) if is_jpeg else encoded(image))
    assert pixels.shape == (20, 30, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - np.asarray(image.convert("RGB"))).mean() < (2 if is_jpeg else 1e-9)


def test_sixteen_bits_are_scaled_and_not_cut_off():
    deep = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    pixels = read_image(encoded(Image.fromarray(deep)))
    assert np.abs(pixels[..., 0].astype(float) - deep / 257).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("top", [40, 255, 65535])
def test_a_dark_picture_of_sixteen_bits_stays_dark(top: int):
    deep = np.linspace(0, top, 64 * 64).reshape(64, 64).astype(np.uint16)
    pixels = read_image(encoded(Image.fromarray(deep)))
    assert pixels.max() == round(top / 257)


@pytest.mark.parametrize("kind", ["grey", "cmyk"])
def test_tiff_is_a_picture_by_its_first_bytes(kind: str, tmp_path: Path):
    path, deep = tmp_path / "scan", np.full((8, 8), 257 * 99, np.uint16)
    image = Image.fromarray(deep) if kind == "grey" else Image.new("RGB", (8, 8), (99, 99, 99)).convert("CMYK")
    path.write_bytes(encoded(image, "TIFF"))
    with open_video(path) as video:
        assert video.info.container == "image"
        assert (next(video.frames_at(np.zeros(1))).pixels == 99).all()


def test_what_is_transparent_is_white():
    clear = np.zeros((4, 4, 4), np.uint8)
    assert (read_image(encoded(Image.fromarray(clear, "RGBA"))) == 255).all()


def test_of_an_animation_the_first_picture_is_taken():
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    data = encoded(first, "WEBP", save_all=True, append_images=[second], lossless=True)
    assert (read_image(data) == (255, 0, 0)).all()


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "TIFF"])
def test_pictures_that_are_not_shown_are_counted(kind: str, tmp_path: Path):
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    path = tmp_path / "several"
    path.write_bytes(encoded(pictures[0], kind, save_all=True, append_images=pictures[1:]))
    with open_video(path) as video:
        assert [note for note in video.warnings if "holds 3 pictures and the first is shown" in note]


def test_the_previews_that_a_camera_adds_to_a_photograph_are_not_counted():
    pictures = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::2, ::2])]
    assert open_picture(encoded(pictures[0], "MPO", save_all=True, append_images=pictures[1:])).notes == ()


def test_a_moving_gif_is_a_film(tmp_path: Path):
    path, pictures = tmp_path / "moving.gif", [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    path.write_bytes(encoded(pictures[0], "GIF", save_all=True, append_images=pictures[1:], duration=500))
    with open_video(path) as video:
        assert (video.info.container, video.info.num_frames) == ("gif", 2)


@pytest.mark.parametrize("size", [(1, 1), (30_000, 20)])
def test_pictures_of_extreme_shapes_are_read(size: tuple[int, int]):
    assert read_image(encoded(Image.new("RGB", size, "teal"))).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("part", [0.0, 0.02, 0.5, 0.95])
def test_a_picture_cut_short_is_refused(kind: str, part: float):
    data = encoded(Image.fromarray(np.tile(PIXELS, (8, 8, 1))), kind)
    with pytest.raises(VideoError, match="cannot be read as a picture"):
        read_image(data[: int(len(data) * part)])


def test_spoilt_pictures_are_read_or_refused():
    data = encoded(Image.fromarray(PIXELS), "JPEG") + encoded(Image.fromarray(PIXELS), "PNG")
    for seed in range(60):
        rng = np.random.default_rng(seed)
        spoilt = bytearray(data if seed % 2 else encoded(Image.fromarray(PIXELS), "WEBP" if seed % 4 else "PNG"))
        for place in rng.integers(0, len(spoilt), size=8):
            spoilt[place] ^= 1 << int(rng.integers(8))
        try:
            assert read_image(bytes(spoilt)).shape[-1] == 3
        except VideoError as error:
            assert "expected" in str(error)


@pytest.mark.parametrize(
    "array", [PIXELS[..., 0], PIXELS.astype(np.float32), PIXELS[:0], np.zeros((4, 4, 4), np.uint8), PIXELS[None]]
)
def test_an_array_of_another_shape_is_refused(array: np.ndarray):
    with pytest.raises(VideoError, match="expected uint8"):
        read_image(array)


def test_a_missing_picture_and_a_folder_are_refused(tmp_path: Path):
    with pytest.raises(VideoError, match="does not exist"):
        read_image(tmp_path / "none.png")
    with pytest.raises(VideoError, match="cannot be read"):
        read_image(tmp_path)


def test_a_picture_beyond_the_limit_is_refused_unread(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 599)
    with pytest.raises(VideoError, match="30 x 20 pixels; expected at most 599"):
        read_image(encoded(Image.fromarray(PIXELS)))


@given(width=st.integers(1, 5000), height=st.integers(1, 5000), most=st.integers(1, 36))
def test_fewer_tiles_may_be_asked_for(width: int, height: int, most: int):
    columns, rows = anyres_grid((width, height), 56, max_tiles=most)
    assert columns * rows <= most
    whole = anyres_grid((width, height), 56)
    if whole[0] * whole[1] <= most:
        assert (columns, rows) == whole
