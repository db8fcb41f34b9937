"""A bridge to lmms-eval: our model under its benchmarks, and our tasks in its form. Light to import; no fork.

lmms-eval 0.7.3 finds `manifests` by the entry-point group `lmms_eval.models`; its class is eval/lmms_model.py. Whatever
it asks is answered by `Answerer`, which knows nothing of lmms-eval but the shape of its requests.

Source: lmms-eval 0.7.3, models/registry_v2.py and api/model.py, as released.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longtake.core.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from longtake.core.types import Answer, VideoMemory
    from longtake.engine.select import Selector
    from longtake.eval.task import Task
    from longtake.models.loaded import LoadedModel
    from longtake.models.prefix import PrefixStore

MODEL_ID = "longtake"
RANDOM_TINY = "random-tiny"
MOST_NEW_TOKENS = 1024
UTILS = "utils.py"


def manifests() -> list[Any]:
    """Tell lmms-eval of our model.

    Raises: MissingExtraError if lmms-eval is not installed, which asked for it.
    """
    try:
        from lmms_eval.models.registry_v2 import ModelManifest  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtraError(
            f"lmms-eval cannot be imported ({error}); expected release 0.7.3; docs/benchmarks.md says how to install it"
        ) from error
    return [ModelManifest(model_id=MODEL_ID, simple_class_path="longtake.eval.lmms_model.Longtake")]


def load_model(
    pretrained: str,
    *,
    compress: str = "",
    reduce: str = "",
    preset: str = "",
    dtype: str = "auto",
    device: str | None = None,
    untuned: bool = False,
) -> LoadedModel:
    """Load a checkpoint with methods by name, their fields as they come; `random-tiny` is a model of random weights.

    Raises: as `longtake.load`; ConfigError for an unknown method.
    """
    from longtake.core.registry import find

    reducer: Any = find("reduce", reduce)() if reduce else None
    if pretrained == RANDOM_TINY:
        from longtake.models.tiny import tiny_model

        loaded = tiny_model()
        loaded.model.reducer = reducer
    else:
        from longtake.convert.load import load

        loaded = load(pretrained, dtype=dtype, device=device, preset=preset or None, reducer=reducer, untuned=untuned)
    if compress:
        compressor: Any = find("compress", compress)()
        loaded.model.use_compressor(compressor)
    return loaded


@dataclasses.dataclass(frozen=True)
class Request:
    """What lmms-eval asks: a text, what to show with it, and how to write the answer."""

    text: str
    visuals: Sequence[Any]
    settings: Mapping[str, Any]
    task: str
    doc_id: int


class Answerer:
    """Answers requests, one video's after the other, so that each video is decoded and encoded once.

    Pictures arrive as PIL images, videos as a path, perhaps followed by {"start": seconds, "end": seconds,
    "folder_fps": pictures a second}. selector: as `longtake.ask`. log: a file that gets a JSON line an answer:
    evidence, frames and seconds, which lmms-eval has no place for.
    """

    def __init__(
        self, model: LoadedModel, *, max_frames: int = 512, selector: Selector | None = None, log: Path | None = None
    ) -> None:
        self.model, self.max_frames, self.selector, self.log = model, max_frames, selector, log
        self._memory: tuple[str, VideoMemory, PrefixStore] | None = None

    def answer_all(self, requests: Sequence[Request], on_answer: Callable[[int, str], None] | None = None) -> list[str]:
        """Answer requests and return the texts in the order in which they came.

        Raises: as `longtake.ask`; ConfigError for a way of writing that is not ours.
        """
        found = [""] * len(requests)
        for place in sorted(range(len(requests)), key=lambda place: _video_key(requests[place].visuals)):
            found[place] = self.answer(requests[place])
            if on_answer is not None:
                on_answer(place, found[place])
        return found

    def answer(self, request: Request) -> str:
        """Answer one request.

        Raises: as `answer_all`.
        """
        from longtake.core.budget import Budget
        from longtake.engine.ask import ask

        how = writing(request.settings)
        budget = Budget(max_frames=self.max_frames, max_new_tokens=how.max_new_tokens)
        given: dict[str, Any] = {"temperature": how.temperature, "seed": how.seed}
        if _video_key(request.visuals):
            memory, prefixes = self._remember(request.visuals, budget)
            found = ask(memory, request.text, self.model, budget, selector=self.selector, prefixes=prefixes, **given)
        else:
            pictures: list[Any] = [_png(visual) for visual in request.visuals]
            if not pictures:
                raise ConfigError(
                    f"request {request.doc_id} of {request.task} shows nothing; expected a video or a picture; "
                    "take a task that shows something"
                )
            found = ask(pictures, request.text, self.model, budget, **given)
        self._write(request, found)
        return how.cut(found.text)

    def _remember(self, visuals: Sequence[Any], budget: Any) -> tuple[VideoMemory, PrefixStore]:
        """Return the memory of a video, of the last one at once, with what was read of it before."""
        from longtake.engine.ingest import ingest
        from longtake.media.video import FOLDER_FPS, open_video
        from longtake.models.prefix import PrefixStore

        key = _video_key(visuals)
        if self._memory is None or self._memory[0] != key:
            part = visuals[1] if len(visuals) > 1 else {}
            start_s, end_s = (None if part.get(name) is None else float(part[name]) for name in ("start", "end"))
            with open_video(Path(visuals[0]), folder_fps=float(part.get("folder_fps", FOLDER_FPS))) as video:
                memory = ingest(video, self.model, budget, start_s=start_s, end_s=end_s)
            self._memory = (key, memory, PrefixStore())
        return self._memory[1], self._memory[2]

    def _write(self, request: Request, found: Answer) -> None:
        if self.log is None:
            return
        spans = [[span.start_s, span.end_s, span.score] for span in found.evidence]
        line = {"task": request.task, "doc_id": request.doc_id, "answer": found.text, "evidence": spans}
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line | {"ledger": found.ledger}, default=str) + "\n")


def _video_key(visuals: Sequence[Any]) -> str:
    """Return what tells a video, and its part, from others; nothing for pictures.

    Raises: ConfigError for several videos.
    """
    paths = [visual for visual in visuals if isinstance(visual, str | Path)]
    if not paths:
        return ""
    if len(paths) > 1 or any(not isinstance(visual, Mapping) for visual in visuals[1:]):
        raise ConfigError(f"{len(visuals)} visuals arrived with a video; expected one video alone; use another task")
    part = visuals[1] if len(visuals) > 1 else {}
    return json.dumps([str(paths[0]), part.get("start"), part.get("end")])


def _png(picture: Any) -> bytes:
    """Return a PIL image as a file, without loss."""
    kept = io.BytesIO()
    picture.convert("RGB").save(kept, format="PNG")
    return kept.getvalue()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Writing:
    """How an answer is written, from lmms-eval's generation settings."""

    max_new_tokens: int
    temperature: float
    seed: int | None
    until: tuple[str, ...]

    def cut(self, text: str) -> str:
        """Return an answer up to the first place where it should end."""
        for ending in self.until:
            text = text.split(ending)[0]
        return text.strip()


def writing(settings: Mapping[str, Any]) -> Writing:
    """Read generation settings; without `do_sample` an answer is the likeliest word after word.

    Raises: ConfigError for beams or nuclei, which are not here: they would be left out in silence.
    """
    samples = bool(settings.get("do_sample", float(settings.get("temperature") or 0) > 0))
    beams, nucleus = int(settings.get("num_beams") or 1), float(settings.get("top_p") or 1.0)
    if beams > 1 or (samples and nucleus < 1):
        raise ConfigError(
            f"num_beams is {beams} and top_p {nucleus:g}; expected 1 and 1; set --gen_kwargs num_beams=1,top_p=1"
        )
    until = settings.get("until") or ()
    return Writing(
        max_new_tokens=int(settings.get("max_new_tokens") or MOST_NEW_TOKENS),
        temperature=float(settings.get("temperature") or 0.0) if samples else 0.0,
        seed=0 if samples else None,
        until=(until,) if isinstance(until, str) else tuple(until),
    )


def export_task(task: Task, folder: Path, limit: int | None = None) -> Path:
    """Write a task of ours as one of lmms-eval: the same items, prompts and scores, for any model that it knows.

    Returns the folder, for `--include_path`; the task is called `longtake_NAME`.

    Raises: ConfigError for items whose video is only drawn when it is needed, or that are more than a prompt.
    """
    rows = []
    for number, item in enumerate(list(task.items())[:limit]):
        if not isinstance(item.media, Path) or task.chat(item) is not None:
            raise ConfigError(
                f"item {item.id} of {task.name} is no file with a prompt; expected a benchmark's; run it with "
                "`longtake eval`"
            )
        part = {"start": item.start_s, "end": item.end_s, "folder_fps": item.folder_fps}
        rows.append({
            "number": number, "id": item.id, "video": str(item.media.resolve()), "part": json.dumps(part),
            "prompt": task.prompt(item), "answer": item.answer, "settings": json.dumps(task.to_dict()),
        })  # fmt: skip
    name = f"longtake_{task.name.replace('-', '_')}"
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "items.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    functions = "doc_to_visual, doc_to_text, process_results, mean_of_right"
    (folder / UTILS).write_text(f"from longtake.eval.lmms import {functions}  # noqa: F401\n", encoding="utf-8")
    (folder / f"{name}.yaml").write_text(_yaml(name, data.resolve(), task.max_new_tokens), encoding="utf-8")
    return folder


def _yaml(name: str, data: Path, max_new_tokens: int) -> str:
    return f"""task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {json.dumps(str(data))}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: !function utils.doc_to_text
doc_to_target: answer
process_results: !function utils.process_results
generation_kwargs:
  max_new_tokens: {max_new_tokens}
  temperature: 0
  do_sample: false
metric_list:
  - metric: accuracy
    aggregation: !function utils.mean_of_right
    higher_is_better: true
metadata:
  - version: 0.0
"""


def doc_to_visual(doc: Mapping[str, Any]) -> list[Any]:
    """Return what an exported row shows."""
    return [doc["video"], json.loads(doc["part"])]


def doc_to_text(doc: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> str:
    """Return an exported row's prompt; lmms-eval's own settings of prompts are left out."""
    return doc["prompt"]


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score a reply to an exported row by the task that it came from."""
    task = _task(doc["settings"])
    item = next(item for item in task.items() if item.id == doc["id"])
    return {"accuracy": float(task.score(results[0], item).right)}


def mean_of_right(values: Sequence[float]) -> float:
    """Return the share of right answers."""
    return sum(values) / len(values)


@functools.cache
def _task(settings: str) -> Task:
    from longtake.eval.task import build

    values = json.loads(settings)
    return build(values.pop("name"), values)
