"""One question on its way through the server: what it asked, and who is told of its answer."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Sequence

from torch import Tensor

from longtake.engine.ask import TextStream
from longtake.models.generation import Sampler
from longtake.models.loaded import LoadedModel
from longtake.serve.reading import Asked, Reading


@dataclasses.dataclass(frozen=True)
class Piece:
    """A piece of the answer's text."""

    text: str


@dataclasses.dataclass(frozen=True)
class Done:
    """The end of an answer: `stop` or `length`, and the tokens of it."""

    reason: str
    num_new: int


@dataclasses.dataclass(frozen=True)
class Failed:
    """The end of a question without an answer."""

    error: Exception


Event = Reading | Piece | Done | Failed
Listener = Callable[[Event], None]


class Cutter:
    """Ends a text before the first of some strings; what may be the beginning of one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = [stop for stop in stops if stop]
        self._held = ""

    def add(self, text: str) -> tuple[str, bool]:
        """Return what can be shown, and whether a stop was met."""
        self._held += text
        found = [place for place in (self._held.find(stop) for stop in self.stops) if place >= 0]
        if found:
            shown, self._held = self._held[: min(found)], ""
            return shown, True
        keep = max(
            (size for stop in self.stops for size in range(1, len(stop)) if self._held.endswith(stop[:size])), default=0
        )
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown, False

    def rest(self) -> str:
        """Return what was held back, when no more follows."""
        rest, self._held = self._held, ""
        return rest


class Job:
    """A question that was accepted. Its listener is called from the server's threads."""

    def __init__(self, asked: Asked, listener: Listener, deadline_s: float | int) -> None:
        self.asked, self.listener = asked, listener
        self.is_cancelled = False
        self.began_s = time.monotonic()
        self.deadline_s = self.began_s + deadline_s
        self.reading: Reading | None = None
        self.num_new = 0

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self.is_cancelled = True

    def start(self, reading: Reading, model: LoadedModel) -> None:
        """Take what was read, and tell the evidence."""
        self.reading, self.cache = reading, reading.cache
        self._sampler = Sampler(temperature=self.asked.temperature, top_p=self.asked.top_p, seed=self.asked.seed)
        self._random = self._sampler.generator()
        self._stream, self._cutter = TextStream(model.tokenizer), Cutter(self.asked.stop)
        self.listener(reading)

    def choose(self, logits: Tensor) -> int:
        """Choose the next token from logits [V]."""
        return int(self._sampler.choose(logits.unsqueeze(0), self._random)[0])

    def take(self, token: int, endings: Sequence[int]) -> str | None:
        """Write a token down and show its text; return why the answer ends with it, if it does."""
        self.num_new += 1
        if token in endings:
            return self._finish("stop")
        text, is_cut = self._cutter.add(self._stream.add(token))
        self._show(text)
        if is_cut:
            return "stop"
        return self._finish("length") if self.num_new >= self.asked.max_tokens else None

    def _finish(self, reason: str) -> str:
        text, is_cut = self._cutter.add(self._stream.rest())
        self._show(text if is_cut else text + self._cutter.rest())
        return "stop" if is_cut else reason

    def _show(self, text: str) -> None:
        if text:
            self.listener(Piece(text))


async def first_of(events: AsyncIterator[Event]) -> Reading:
    """Return what was read; an error before it becomes the status of the reply."""
    found = await anext(events)
    assert isinstance(found, Reading), "an answer began before its question was read"
    return found


async def whole(events: AsyncIterator[Event]) -> tuple[Reading, str, Done]:
    """Wait for a whole answer."""
    reading, text = await first_of(events), []
    async for event in events:
        if isinstance(event, Piece):
            text.append(event.text)
        elif isinstance(event, Done):
            return reading, "".join(text).strip(), event
    raise RuntimeError("an answer had no end")
