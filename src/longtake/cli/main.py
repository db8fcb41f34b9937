"""The command line: reads arguments, calls the engine, turns errors into exit codes."""

from __future__ import annotations

import errno
import importlib
import sys
from typing import Annotated, Any, Optional

import typer

from longtake._version import __version__
from longtake.core.errors import ConfigError, LongtakeError, StorageError

app = typer.Typer(
    name="longtake",
    help="Turn an hour of video into a small memory once; then ask anything about it, with the proof.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Video = Annotated[str, typer.Argument(help="A video, picture or folder of pictures: a path or an http(s) address.")]
Media = Annotated[list[str], typer.Argument(help="Videos, pictures, folders of pictures, memories, in order.")]
Json = Annotated[bool, typer.Option("--json", help="Write one JSON object to standard output.")]
MaxFrames = Annotated[int, typer.Option(help="At most this many frames.")]
TokensPerFrame = Annotated[Optional[float], typer.Option(help="Merge tokens to so many a frame: 16, 4, 1, 0.25 …")]  # noqa: UP045
MaxTiles = Annotated[Optional[int], typer.Option(help="Cut a picture into at most so many tiles.")]  # noqa: UP045
MaxNewTokens = Annotated[int, typer.Option(help="At most this many tokens of answer.")]
Start = Annotated[Optional[float], typer.Option(help="Take the video from this second on.")]  # noqa: UP045
End = Annotated[Optional[float], typer.Option(help="Take the video up to this second.")]  # noqa: UP045
Model = Annotated[Optional[str], typer.Option(help="A checkpoint's folder or hub name.")]  # noqa: UP045
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Device = Annotated[Optional[str], typer.Option(help="cpu, cuda, cuda:1, mps …")]  # noqa: UP045
Compress = Annotated[Optional[str], typer.Option(help="Merge the tokens of a clip by this method.")]  # noqa: UP045
Reduce = Annotated[Optional[str], typer.Option(help="Drop visual tokens between layers by this method.")]  # noqa: UP045
Recipe = Annotated[Optional[str], typer.Option(help="Build the model by this Python function: module:function.")]  # noqa: UP045
Settings = Annotated[Optional[list[str]], typer.Option("--set", help="A field of a method: reduce.kind=uniform.")]  # noqa: UP045

Ray = Annotated[bool, typer.Option("--ray", help="Share the work out on a Ray cluster (docs/scale.md).")]
RayAddress = Annotated[Optional[str], typer.Option(help="With --ray: a running cluster, or auto; else one here.")]  # noqa: UP045
Workers = Annotated[Optional[int], typer.Option(help="With --ray: so many processes, each with a model.", min=1)]  # noqa: UP045
Gpus = Annotated[float, typer.Option(help="With --ray: GPUs of each process; 0.5 lets two share one.", min=0.0)]
Preset = Annotated[Optional[str], typer.Option(help="Take architecture and methods from a preset's name.")]  # noqa: UP045
Untuned = Annotated[bool, typer.Option(help="Accept methods that the weights were not tuned for.")]
Select = Annotated[Optional[str], typer.Option(help="Answer from the frames that this method selects: qc-comp.")]  # noqa: UP045
FramesKept = Annotated[int, typer.Option(help="With --select: so many frames.")]


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"longtake {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Turn an hour of video into a small memory once; then ask anything about it, with the proof."""


def _command(name: str) -> Any:
    """Import a command's module only when it runs, so that help answers at once."""
    return importlib.import_module(f"longtake.cli.{name}").run


def _budget(
    max_frames: int, max_new_tokens: int, tokens_per_frame: float | None = None, max_tiles: int | None = None
) -> Any:
    from longtake.core.budget import Budget

    return Budget(
        max_frames=max_frames,
        max_new_tokens=max_new_tokens,
        tokens_per_frame=tokens_per_frame,
        max_tiles=max_tiles,
    )


def _model(
    name: str | None,
    recipe: str | None,
    dtype: str,
    device: str | None,
    compress: str | None,
    reduce: str | None,
    settings: list[str] | None,
    preset: str | None = None,
    untuned: bool = False,
    select: tuple[str | None, int] = (None, 512),
) -> dict[str, Any]:
    values = {"name": name, "recipe": recipe, "dtype": dtype, "device": device, "preset": preset, "untuned": untuned}
    return values | {"compress": compress, "reduce": reduce, "select": select, "settings": settings or []}


def _cluster(ray: bool, address: str | None, workers: int | None, gpus: float, retry: bool = False) -> Any:
    """Return the cluster that was asked for; none if none was."""
    if ray:
        return {"address": address, "workers": workers, "gpus": gpus}
    if address is not None or workers is not None or gpus or retry:
        raise ConfigError("--ray-address, --workers, --gpus or --retry arrived without --ray; expected both; add --ray")
    return None


@app.command()
def ask(
    media: Media,
    question: Annotated[str, typer.Argument(help="What to ask.")],
    model: Model = None,
    recipe: Recipe = None,
    max_frames: MaxFrames = 512,
    max_new_tokens: MaxNewTokens = 1024,
    tokens_per_frame: TokensPerFrame = None,
    max_tiles: MaxTiles = None,
    start: Start = None,
    end: End = None,
    dtype: Dtype = "auto",
    device: Device = None,
    compress: Compress = None,
    reduce: Reduce = None,
    select: Select = None,
    frames_kept: FramesKept = 512,
    preset: Preset = None,
    untuned: Untuned = False,
    settings: Settings = None,
    verify: Annotated[bool, typer.Option("--verify", help="Ask again without what the answer cites.")] = False,
    pictures: Annotated[Optional[str], typer.Option(help="Of a memory: put pictures of the evidence here.")] = None,  # noqa: UP045
    videos: Annotated[int, typer.Option(help="Of a folder of memories: read so many of the best videos.")] = 1,
    keep_keys: Annotated[
        bool, typer.Option("--keep-keys", help="With --select, of a memory: put its keys beside it, for later.")
    ] = False,
    json: Json = False,
) -> None:
    """Answer a question about videos and pictures, with the spans that the answer rests on.

    With several, the question may say <image> where each belongs; else they stand in front of it. Of a folder of
    memories, the videos and segments that the question names are found first (docs/library.md).
    """
    chosen = (select, frames_kept)
    parts = _model(model, recipe, dtype, device, compress, reduce, settings, preset, untuned, chosen)
    budget = _budget(max_frames, max_new_tokens, tokens_per_frame, max_tiles)
    _command("ask")(media, question, budget, start, end, parts, verify, pictures, json, videos, keep_keys)


@app.command()
def chat(
    media: Media,
    model: Model = None,
    recipe: Recipe = None,
    max_frames: MaxFrames = 512,
    max_new_tokens: MaxNewTokens = 1024,
    tokens_per_frame: TokensPerFrame = None,
    max_tiles: MaxTiles = None,
    start: Start = None,
    end: End = None,
    dtype: Dtype = "auto",
    device: Device = None,
    compress: Compress = None,
    reduce: Reduce = None,
    select: Select = None,
    frames_kept: FramesKept = 512,
    preset: Preset = None,
    untuned: Untuned = False,
    settings: Settings = None,
    json: Json = False,
) -> None:
    """Ask several questions about videos and pictures, which are encoded once."""
    chosen = (select, frames_kept)
    parts = _model(model, recipe, dtype, device, compress, reduce, settings, preset, untuned, chosen)
    budget = _budget(max_frames, max_new_tokens, tokens_per_frame, max_tiles)
    _command("chat")(media, budget, start, end, parts, json)


@app.command()
def explain(
    video: Video,
    question: Annotated[str, typer.Argument(help="What to ask.")],
    out: Annotated[str, typer.Option(help="Where the picture goes: .png, .pdf or .svg.")] = "heat.png",
    model: Model = None,
    recipe: Recipe = None,
    max_frames: MaxFrames = 512,
    start: Start = None,
    end: End = None,
    dtype: Dtype = "auto",
    device: Device = None,
    compress: Compress = None,
    reduce: Reduce = None,
    frames_kept: FramesKept = 512,
    preset: Preset = None,
    untuned: Untuned = False,
    settings: Settings = None,
    json: Json = False,
) -> None:
    """Draw what a question looks at: relevance over time, the top frames, tokens spent per frame and layer."""
    chosen = ("qc_comp", frames_kept)
    parts = _model(model, recipe, dtype, device, compress, reduce, settings, preset, untuned, chosen)
    _command("explain")(video, question, out, _budget(max_frames, 1), start, end, parts, json)


@app.command()
def bias(
    video: Video,
    question: Annotated[str, typer.Argument(help="What to ask.")],
    needle: Annotated[Optional[str], typer.Option(help="A video whose first clip is hidden in it.")] = None,  # noqa: UP045
    out: Annotated[str, typer.Option(help="Where the picture goes: .png, .pdf or .svg.")] = "bias.png",
    rounds: Annotated[int, typer.Option(help="How many shufflings, and how many depths of the needle.")] = 16,
    model: Model = None,
    recipe: Recipe = None,
    max_frames: MaxFrames = 512,
    dtype: Dtype = "auto",
    device: Device = None,
    compress: Compress = None,
    reduce: Reduce = None,
    preset: Preset = None,
    untuned: Untuned = False,
    settings: Settings = None,
    json: Json = False,
) -> None:
    """Measure how much selection depends on position: a null video, shuffled clips, a needle at every depth."""
    parts = _model(model, recipe, dtype, device, compress, reduce, settings, preset, untuned, ("qc_comp", 512))
    _command("bias")(video, question, needle, out, rounds, _budget(max_frames, 1), parts, json)


@app.command()
def probe(video: Video, max_frames: MaxFrames = 512, start: Start = None, end: End = None, json: Json = False) -> None:
    """Say what is in a file, which frames would be sampled, and what is wrong with it."""
    _command("probe")(video, max_frames, start, end, json)


@app.command()
def plan(
    video: Annotated[Optional[str], typer.Argument(help="A video; or give --duration.")] = None,  # noqa: UP045
    duration: Annotated[Optional[float], typer.Option(help="Seconds of video to plan for.")] = None,  # noqa: UP045
    model: Annotated[str, typer.Option(help="A preset's name, or a checkpoint's folder.")] = "videochat_flash_2b",
    max_frames: MaxFrames = 512,
    max_new_tokens: MaxNewTokens = 1024,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "bfloat16",
    json: Json = False,
) -> None:
    """Predict frames, tokens, memory and arithmetic without loading a weight."""
    _command("plan")(video, duration, model, max_frames, max_new_tokens, dtype, json)


@app.command()
def doctor(json: Json = False) -> None:
    """Report versions, devices, decoders, and whether the hub can be reached."""
    _command("doctor")(json)


@app.command()
def demo(
    video: Annotated[Optional[str], typer.Argument(help="Your own video, instead of the rendered one.")] = None,  # noqa: UP045
    video_only: Annotated[Optional[str], typer.Option(help="Only write the film, to this file.")] = None,  # noqa: UP045
    json: Json = False,
) -> None:
    """Ask the bundled model five questions about ten minutes of film made on the spot, and show the truth beside."""
    _command("demo")(video, video_only, json)


@app.command()
def ingest(
    videos: Annotated[list[str], typer.Argument(help="Videos, pictures or folders of pictures.")],
    out: Annotated[str, typer.Option("--out", "-o", help="A folder for the memories, or one file: film.ltm.")] = ".",
    store: Annotated[str, typer.Option(help="Keep tokens as float32, bfloat16, float16, int8; auto loses nothing.")] = (
        "auto"
    ),
    model: Model = None,
    recipe: Recipe = None,
    max_frames: MaxFrames = 4096,
    start: Start = None,
    end: End = None,
    dtype: Dtype = "auto",
    device: Device = None,
    compress: Compress = None,
    preset: Preset = None,
    untuned: Untuned = False,
    settings: Settings = None,
    ray: Ray = False,
    ray_address: RayAddress = None,
    workers: Workers = None,
    gpus: Gpus = 0.0,
    retry: Annotated[bool, typer.Option("--retry", help="With --ray: try again what is in quarantine.")] = False,
    keys: Annotated[bool, typer.Option("--keys", help="Put the keys for `ask --select qc-comp` beside each.")] = False,
    json: Json = False,
) -> None:
    """Turn videos into memories on disk, to ask without decoding them again; goes on where it was stopped.

    With --ray a folder stands for all videos below it, and what fails is listed in quarantine.json.
    """
    chosen = ("qc_comp" if keys else None, 512)
    parts = _model(model, recipe, dtype, device, compress, None, settings, preset, untuned, chosen)
    cluster = _cluster(ray, ray_address, workers, gpus, retry)
    _command("ingest")(videos, out, store, _budget(max_frames, 1), start, end, parts, json, cluster, retry)


@app.command()
def watch(
    video: Annotated[str, typer.Argument(help="A growing file, an http(s) or rtsp address, or camera:NAME.")],
    out: Annotated[str, typer.Option("--out", "-o", help="The memory: live.ltm.")],
    fps: Annotated[float, typer.Option(help="Frames a second.")] = 1.0,
    max_mb: Annotated[Optional[float], typer.Option(help="At most so many MB: old parts lose detail, then go.")] = None,  # noqa: UP045
    store: Annotated[str, typer.Option(help="Keep tokens as float32, bfloat16, float16, int8; auto loses nothing.")] = (
        "auto"
    ),
    quiet: Annotated[float, typer.Option(help="Finished after so many seconds without anything new.")] = 30.0,
    model: Model = None,
    recipe: Recipe = None,
    dtype: Dtype = "auto",
    device: Device = None,
    compress: Compress = None,
    preset: Preset = None,
    untuned: Untuned = False,
    settings: Settings = None,
    json: Json = False,
) -> None:
    """Append to a memory while a video grows; ask it meanwhile.

    A stream or a camera is recorded in pieces beside the memory, which are removed once they are read.
    """
    parts = _model(model, recipe, dtype, device, compress, None, settings, preset, untuned)
    _command("watch")(video, out, fps, max_mb, store, quiet, parts, json)


@app.command()
def memory(
    action: Annotated[str, typer.Argument(help="info, verify or prune.")],
    memories: Annotated[list[str], typer.Argument(help="Memories, or folders of them.")],
    tokens_per_frame: TokensPerFrame = None,
    store: Annotated[Optional[str], typer.Option(help="With prune: keep tokens as bfloat16, float16, int8.")] = None,  # noqa: UP045
    keys: Annotated[Optional[str], typer.Option(help="With prune: none removes the keys kept beside them.")] = None,  # noqa: UP045
    json: Json = False,
) -> None:
    """Say what is in memories, compare every byte with its checksum, or make them smaller."""
    _command("memory")(action, memories, tokens_per_frame, store, json, keys)


@app.command()
def serve(
    store: Annotated[str, typer.Option(help="The folder of files and memories.")] = "longtake-store",
    host: Annotated[str, typer.Option(help="Where to listen; others than loopback need --keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.")] = 8000,
    keys: Annotated[Optional[str], typer.Option(help="A file of hashed keys; each sees its own memories.")] = None,  # noqa: UP045
    add_key: Annotated[Optional[str], typer.Option(help="Only make a key, show it, note its hash.")] = None,  # noqa: UP045
    allow_host: Annotated[Optional[list[str]], typer.Option(help="Another name that browsers reach it by.")] = None,  # noqa: UP045
    remote_host: Annotated[Optional[list[str]], typer.Option(help="Fetch videos from here: name, *.name, *.")] = None,  # noqa: UP045
    root: Annotated[Optional[str], typer.Option(help="Videos below it may be named by path.")] = None,  # noqa: UP045
    metrics_key: Annotated[Optional[str], typer.Option(help="Whose key may read /metrics.")] = None,  # noqa: UP045
    name: Annotated[str, typer.Option(help="What the model is called in /v1/models.")] = "longtake",
    limit: Annotated[Optional[list[str]], typer.Option(help="Another limit: active=8 (docs/serving.md).")] = None,  # noqa: UP045
    model: Model = None,
    recipe: Recipe = None,
    dtype: Dtype = "auto",
    device: Device = None,
    compress: Compress = None,
    reduce: Reduce = None,
    preset: Preset = None,
    untuned: Untuned = False,
    settings: Settings = None,
    ray: Ray = False,
    ray_address: RayAddress = None,
    workers: Workers = None,
    gpus: Gpus = 0.0,
) -> None:
    """Serve memories over HTTP, as OpenAI's clients expect, with the evidence; on loopback unless told otherwise."""
    parts = _model(model, recipe, dtype, device, compress, reduce, settings, preset, untuned)
    values = {"store": store, "host": host, "port": port, "keys": keys, "local_root": root, "model_name": name}
    values |= {"hosts": tuple(allow_host or ()), "remote_hosts": tuple(remote_host or ()), "metrics_key": metrics_key}
    _command("serve")(values, limit or [], add_key, parts, _cluster(ray, ray_address, workers, gpus))


@app.command()
def mcp(
    store: Annotated[str, typer.Option(help="The folder of memories.")] = "longtake-store",
    root: Annotated[str, typer.Option(help="Only videos below this folder may be opened.")] = ".",
    model: Model = None,
    recipe: Recipe = None,
    max_frames: MaxFrames = 4096,
    max_new_tokens: MaxNewTokens = 256,
    dtype: Dtype = "auto",
    device: Device = None,
    compress: Compress = None,
    reduce: Reduce = None,
    preset: Preset = None,
    untuned: Untuned = False,
    settings: Settings = None,
) -> None:
    """Offer ingest, ask and evidence to an assistant: a Model Context Protocol server on standard input and output."""
    parts = _model(model, recipe, dtype, device, compress, reduce, settings, preset, untuned)
    _command("mcp")(store, root, _budget(max_frames, max_new_tokens), parts)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="stage1 to stage4, sct, xcomp, or module:function.")],
    settings: Annotated[Optional[list[str]], typer.Option("--set", help="A field of it: rates.tower=2e-6.")] = None,  # noqa: UP045
    json: Json = False,
) -> None:
    """Train by a recipe; the same command goes on where a run was stopped. See docs/training.md."""
    _command("train")(recipe, settings or [], json)


@app.command()
def convert(
    folder: Annotated[str, typer.Argument(help="A checkpoint's folder.")],
    target: Annotated[Optional[str], typer.Argument(help="The folder to write, under the names used here.")] = None,  # noqa: UP045
    explain: Annotated[bool, typer.Option("--explain", help="Only say what its tensors' names stand for.")] = False,
    table: Annotated[Optional[str], typer.Option(help="A JSON table: its names to ours.")] = None,  # noqa: UP045
    preset: Preset = None,
    json: Json = False,
) -> None:
    """Write a checkpoint anew, or explain the names in one whose code is not public (PVC)."""
    _command("convert")(folder, target, explain, table, preset, json)


@app.command(name="eval")
def evaluate(
    task: Annotated[str, typer.Argument(help="A task by name: niah, filmstrip-n1, mlvu … See docs/evaluation.md.")],
    frames: Annotated[Optional[str], typer.Option(help="Of needles: lengths of the haystack: 1000,2000.")] = None,  # noqa: UP045
    data: Annotated[Optional[str], typer.Option(help="The folder of a benchmark's annotations and videos.")] = None,  # noqa: UP045
    limit: Annotated[Optional[int], typer.Option(help="Only the first so many items.", min=1)] = None,  # noqa: UP045
    out: Annotated[Optional[str], typer.Option(help="Keep every answer here, to go on with it later.")] = None,  # noqa: UP045
    processes: Annotated[int, typer.Option(help="So many processes share the items.", min=1)] = 1,
    shard: Annotated[Optional[str], typer.Option(help="Only shard N/COUNT, for other machines; needs --out.")] = None,  # noqa: UP045
    without: Annotated[Optional[list[str]], typer.Option(help="Turn off a baseline by its name, or all.")] = None,  # noqa: UP045
    probes: Annotated[int, typer.Option(help="Films for each probe beside the score; 0 turns them off.", min=0)] = 5,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn at random.")] = 0,
    heat_map: Annotated[Optional[str], typer.Option(help="Of needles: draw depth by length here: grid.png.")] = None,  # noqa: UP045
    model: Model = None,
    recipe: Recipe = None,
    max_frames: Annotated[Optional[int], typer.Option(help="At most this many frames; else 512, or --frames.")] = None,  # noqa: UP045
    max_new_tokens: MaxNewTokens = 1024,
    tokens_per_frame: TokensPerFrame = None,
    dtype: Dtype = "auto",
    device: Device = None,
    compress: Compress = None,
    reduce: Reduce = None,
    select: Select = None,
    frames_kept: FramesKept = 512,
    preset: Preset = None,
    untuned: Untuned = False,
    settings: Settings = None,
    ends_with_parent: Annotated[bool, typer.Option("--ends-with-parent", hidden=True)] = False,
    json: Json = False,
) -> None:
    """Measure a model on a task, with intervals, baselines at the same token budget, and what it cost."""
    parts = _model(model, recipe, dtype, device, compress, reduce, settings, preset, untuned, (select, frames_kept))
    budget = {"max_frames": max_frames, "max_new_tokens": max_new_tokens, "tokens_per_frame": tokens_per_frame}
    options = {"frames": frames, "data": data, "limit": limit, "out": out, "processes": processes, "shard": shard,
               "without": without or [], "probes": probes, "seed": seed, "heat_map": heat_map,
               "ends_with_parent": ends_with_parent}  # fmt: skip
    _command("eval")(task, budget, parts, options, json)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="The folder of a run: what --out of `longtake eval` named.")],
    second: Annotated[str, typer.Argument(help="The folder of another run of the task.")],
    arm: Annotated[str, typer.Option(help="model, or the name of a baseline.")] = "model",
    shown: Annotated[int, typer.Option(help="Print so many items that one alone has right.", min=0)] = 10,
    json: Json = False,
) -> None:
    """Say why two runs score differently: settings, then item by item, with a test on the items of both."""
    _command("compare")(first, second, arm, shown, json)


@app.command()
def bench(
    names: Annotated[Optional[list[str]], typer.Argument(help="Only these benches.")] = None,  # noqa: UP045
    quick: Annotated[bool, typer.Option(help="Small sizes: does it run, not how fast it is.")] = False,
    json: Json = False,
) -> None:
    """Measure the claims of the README; needs a clone of the repository."""
    _command("bench")(names or [], quick, json)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: 0, or the code of the error's type (docs/cli.md)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        app(args=arguments)
    except LongtakeError as error:
        _fail(error, arguments)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        full = f"the disk is full ({error}); expected room for temporary files; free some space, or set TMPDIR"
        _fail(StorageError(full), arguments)


def _fail(error: LongtakeError, arguments: list[str]) -> None:
    from longtake.cli.output import report_error

    report_error(error, as_json="--json" in arguments)
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
