"""`longtake probe`: what is in a file, and which frames would be sampled."""

from __future__ import annotations

from rich.table import Table

from longtake.cli.output import out, print_json, seconds_text


def run(video: str, max_frames: int, start_s: float | None, end_s: float | None, as_json: bool) -> None:
    """Open a video without decoding more than one frame."""
    from longtake.media.sampling import SamplingRule, sample_times
    from longtake.media.video import open_video

    with open_video(video) as opened:
        info = opened.info
        sampled = sample_times(opened.clock, SamplingRule(), max_frames, start_s=start_s, end_s=end_s)
    times = [round(float(time), 6) for time in sampled.times_s]
    if as_json:
        facts = info.to_dict()
        print_json(
            facts
            | {
                "first_pts_s": float(opened.clock.pts_s[0]),
                "last_pts_s": float(opened.clock.pts_s[-1]),
                "sampled": {"num_frames": len(times), "duration_s": sampled.duration_s, "times_s": times},
            }
        )
        return
    table, gap = Table(show_header=False), info.key_frame_interval_s
    rate = f"{info.average_fps:.3f} frames a second" + (" on average, variable" if info.is_variable_rate else "")
    rows = {
        "source": info.source,
        "container, codec": f"{info.container}, {info.codec}",
        "picture": f"{info.width} x {info.height}, turned {info.rotation_degrees}°",
        "frames": f"{info.num_frames}, {rate}",
        "duration": f"{seconds_text(info.duration_s)} (stream starts at {info.start_s:g} s)",
        "longest gap of key frames": "unknown" if gap is None else f"{gap:.2f} s",
        "decoder": info.backend,
        "would be sampled": f"{len(times)} frames, {times[0]:.2f} s to {times[-1]:.2f} s",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    out.print(table)
    for warning in info.warnings:
        out.print(f"warning: {warning}", markup=False)
