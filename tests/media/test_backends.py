"""The ladder of decoders: what is chosen, what is said, and that the rungs agree."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from longtake.core.errors import ConfigError, MissingExtraError, VideoError
from longtake.media import backends, decode_ffmpeg, decode_pyav
from longtake.media.scan import Picture
from longtake.media.video import open_video
from tests.media.places import GOLDEN

BASE = GOLDEN / "base.mp4"
HAS_FFMPEG = backends.is_available("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(not HAS_FFMPEG, reason="the ffmpeg program is not on the PATH")


def test_the_choice_is_logged_once_and_recorded(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "longtake"), open_video(BASE, isolate=False) as video:
        list(video.frames_at(video.clock.pts_s[:3]))
        list(video.frames_at(video.clock.pts_s[:3]))
    assert video.info.backend == "pyav"
    assert [record.message for record in caplog.records] == [f"{BASE}: decoding with pyav"]


def test_an_unknown_decoder_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'pyav'"):
        backends.candidates("pyaw")


def test_a_decoder_that_is_not_installed_names_the_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backends, "is_available", lambda name: False)
    for name, remedy in (
        ("torchcodec", r"longtake\[torchcodec\]"),
        ("ffmpeg", "ffmpeg program"),
        ("pyav", "install av"),
    ):
        with pytest.raises(MissingExtraError, match=remedy):
            open_video(BASE, backend=name)
    with pytest.raises(MissingExtraError, match="no decoder is installed"):
        open_video(BASE)


class Second:
    """A second rung: PyAV again, under another name, with a table that has one more row in front."""

    @staticmethod
    def scan(path, alive):
        table = decode_pyav.scan(path, alive)
        table.ticks = np.concatenate([table.ticks[:1] - 512, table.ticks])
        return table

    @staticmethod
    def pictures(path, table, indices, size, *, exact, alive) -> Iterator[Picture]:
        table.ticks = table.ticks[1:]
        yield from decode_pyav.pictures(path, table, indices - 1, size, exact=exact, alive=alive)


class CannotOpen:
    @staticmethod
    def scan(path, alive):
        raise VideoError(f"{path} has an unknown codec; expected another; convert it")


class GivesUp:
    scan = staticmethod(decode_pyav.scan)

    @staticmethod
    def pictures(path, table, indices, size, *, exact, alive) -> Iterator[Picture]:
        for number, picture in enumerate(decode_pyav.pictures(path, table, indices, size, exact=exact, alive=alive)):
            if number == 4:
                raise VideoError(f"{path} broke; expected more; check it")
            yield picture


def use(monkeypatch: pytest.MonkeyPatch, rungs: dict[str, type]) -> None:
    monkeypatch.setattr("longtake.media.video.candidates", lambda backend: list(rungs))
    monkeypatch.setattr("longtake.media.video.decoder", lambda name: rungs[name])


def test_a_file_the_first_decoder_cannot_open_goes_to_the_next(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    use(monkeypatch, {"pyav": CannotOpen, "ffmpeg": Second})
    with open_video(BASE, isolate=False) as video:
        assert video.info.backend == "ffmpeg"
        assert "pyav could not open it" in video.warnings[0] and "unknown codec" in video.warnings[0]
    assert "decoding with ffmpeg" in caplog.text


def test_a_decoder_that_gives_up_half_way_is_relieved_and_no_frame_is_lost(monkeypatch: pytest.MonkeyPatch):
    with open_video(BASE, isolate=False) as video:
        times_s = video.clock.pts_s[::10]
        wanted = np.concatenate([frames.pixels for frames in video.frames_at(times_s, size=(36, 64))])
    use(monkeypatch, {"pyav": GivesUp, "ffmpeg": Second})
    with open_video(BASE, isolate=False) as video:
        chunks = list(video.frames_at(times_s, size=(36, 64), chunk_frames=3))
        assert any("pyav gave up after 4 frames" in warning for warning in video.warnings)
    assert np.array_equal(np.concatenate([chunk.pixels for chunk in chunks]), wanted)


def test_the_first_decoders_reason_is_told_when_all_fail(monkeypatch: pytest.MonkeyPatch):
    use(monkeypatch, {"pyav": CannotOpen, "ffmpeg": CannotOpen})
    with pytest.raises(VideoError, match="unknown codec"):
        open_video(BASE, isolate=False)


def test_a_decoder_that_gives_up_with_nobody_left_is_an_error(monkeypatch: pytest.MonkeyPatch):
    use(monkeypatch, {"pyav": GivesUp})
    with open_video(BASE, isolate=False) as video, pytest.raises(VideoError, match=r"base\.mp4 broke"):
        list(video.frames_at(video.clock.pts_s))


@needs_ffmpeg
@pytest.mark.parametrize("isolate", [True, False])
@pytest.mark.parametrize(
    "name",
    ["base.mp4", "rotated90_metadata.mp4", "edit_list_trim.mp4", "vfr.mp4", "start_at_100s.ts", "vfr_gap20s.mkv"],
)
def test_the_ffmpeg_program_gives_the_frames_of_pyav(name: str, isolate: bool):
    with open_video(GOLDEN / name, isolate=isolate, backend="ffmpeg") as video, open_video(GOLDEN / name) as other:
        assert video.info.backend == "ffmpeg"
        assert np.abs(video.clock.pts_s - other.clock.pts_s).max() < 2e-3
        assert (video.info.width, video.info.height) == (other.info.width, other.info.height)
        times_s = other.clock.pts_s[::9]
        one, two = (
            np.concatenate([frames.pixels for frames in v.frames_at(times_s)]).astype(int) for v in (video, other)
        )
    assert np.abs(one - two).mean((1, 2, 3)).max() < 1.0  # another version of the colour conversion, same frames


@needs_ffmpeg
def test_the_ffmpeg_program_past_damage_marks_what_stands_in():
    with open_video(GOLDEN / "corrupt_middle_bytes.mp4", backend="ffmpeg") as video:
        chunks = list(video.frames_at(video.clock.pts_s, size=(36, 64)))
    assert sum(len(chunk) for chunk in chunks) == 150
    assert 0 < sum(int(chunk.damaged.sum()) for chunk in chunks if chunk.damaged is not None) < 30


@needs_ffmpeg
@pytest.mark.parametrize("name", ["truncated_no_moov.mp4", "facts.json"])
def test_the_ffmpeg_program_refuses_what_is_no_video(name: str):
    with pytest.raises(VideoError, match="cannot be opened"):
        open_video(GOLDEN / name, backend="ffmpeg")


@pytest.mark.parametrize("name", ["base.mp4", "rotated90_metadata.mp4", "edit_list_trim.mp4", "vfr.mp4"])
def test_torchcodec_gives_the_frames_of_pyav(name: str):
    with open_video(GOLDEN / name, isolate=False) as other:
        times_s = other.clock.pts_s[[0, 10, 42, -1]]
        wanted = np.concatenate([frames.pixels for frames in other.frames_at(times_s)]).astype(int)
        try:
            with open_video(GOLDEN / name, backend="torchcodec") as video:
                found = np.concatenate([frames.pixels for frames in video.frames_at(times_s)]).astype(int)
        except MissingExtraError as error:
            pytest.skip(str(error))
    assert np.abs(found - wanted).mean((1, 2, 3)).max() < 1.0


def write_program(folder: Path, name: str, text: str) -> None:
    program = folder / name
    program.write_text("#!/bin/sh\n" + text)
    program.chmod(0o755)


PROBED = (
    '{"packets": [{"pts_time": "0.0", "duration_time": "1.0", "flags": "K_"}, {"pts_time": "1.0", "flags": "__"}],'
    ' "streams": [{"index": 0, "codec_type": "video", "codec_name": "raw", "width": 2, "height": 2}],'
    ' "format": {"format_name": "fake", "start_time": "0.0"}}'
)


def test_frames_of_the_program_are_matched_by_the_times_that_it_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_program(tmp_path, "ffprobe", f"echo '{PROBED}'")
    line = "[Parsed_showinfo_1 @ 0x1] n:   {} pts: {} pts_time:x"
    write_program(
        tmp_path,
        "ffmpeg",
        f"echo '{line.format(0, 1000000)}' >&2\nprintf 'bbbbbbbbbbbb'\n",  # the frame at 0 s is lost
    )
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    table = decode_ffmpeg.scan("x.raw")
    assert table.pts_s.tolist() == [0.0, 1.0]
    found = list(decode_ffmpeg.pictures("x.raw", table, np.array([0, 1]), None, exact=True))
    assert [picture.is_damaged for picture in found] == [True, False]
    assert (found[1].pixels == ord("b")).all()


def test_a_program_that_gives_nothing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_program(tmp_path, "ffprobe", f"echo '{PROBED}'")
    write_program(tmp_path, "ffmpeg", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    table = decode_ffmpeg.scan("x.raw")
    with pytest.raises(VideoError, match="not one frame"):
        list(decode_ffmpeg.pictures("x.raw", table, np.array([0]), None, exact=True))
