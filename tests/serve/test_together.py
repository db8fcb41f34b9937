"""Answers written together are those written alone."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longtake.engine.ask import ask
from longtake.media.sampling import SamplingRule
from longtake.methods.reduce.progressive_drop import ProgressiveDrop
from longtake.models.loaded import LoadedModel
from longtake.nn.language.walk import decode_step
from longtake.serve.answers import Answers, FairQueue
from longtake.serve.errors import ApiError
from longtake.serve.jobs import Cutter, Done, Event, Failed, Job, Piece
from longtake.serve.metrics import Metrics
from longtake.serve.reading import Asked, Reading
from longtake.serve.resident import Residents
from longtake.serve.settings import Limits
from longtake.serve.together import decode_together, own_copy


def test_steps_together_equal_steps_alone(model: LoadedModel) -> None:
    network = model.model
    prompts = [torch.arange(count) % 90 + 10 for count in (3, 40, 17)]
    alone, together = [], []
    for prompt in prompts:
        walked = network.prefill(network.splice_inputs(prompt.unsqueeze(0)), use_cache=True)
        assert walked.cache is not None
        alone.append(own_copy(walked.cache, 4))
        together.append(own_copy(walked.cache, 4))
    with torch.no_grad():
        for token in (5, 6, 7):
            embeds = network.embed_text(torch.tensor([[token], [token + 1], [token + 2]]))
            hidden = decode_together(network.language, embeds, together)
            for row, cache in enumerate(alone):
                own = decode_step(network.language, embeds[row : row + 1], cache)
                torch.testing.assert_close(hidden[row : row + 1], own, rtol=1e-4, atol=1e-4)
    assert [cache.lengths() for cache in alone] == [cache.lengths() for cache in together]


@given(
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    pieces=st.lists(st.text("abc", max_size=5), max_size=8),
)
def test_a_text_is_cut_at_the_stop_that_is_whole_first(stops: list[str], pieces: list[str]) -> None:
    """Of "b" and "abb" the first ends a text of the pieces "a", "b", "b": nothing is written any more after it."""
    cutter, shown, is_cut = Cutter(stops), "", False
    for piece in pieces:
        more, is_cut = cutter.add(piece)
        shown += more
        if is_cut:
            break
    shown += "" if is_cut else cutter.rest()
    for count in range(len(pieces) + 1):
        text = "".join(pieces[:count])
        places = [text.find(stop) for stop in stops if stop in text]
        if places:
            break
    assert is_cut == bool(places)
    assert shown == (text[: min(places)] if places else text)


def job(owner: str, question: str) -> Job:
    return Job(Asked(owner=owner, media=(), question=question), lambda _: None, 1)


def test_keys_take_turns() -> None:
    queue = FairQueue()
    for owner, question in (("a", "1"), ("a", "2"), ("a", "3"), ("b", "4"), ("c", "5"), ("b", "6")):
        queue.put(job(owner, question))
    assert queue.of("a") == 3 and len(queue) == 6
    dropped = queue.drop(lambda item: item.asked.question == "2")
    assert [item.asked.question for item in dropped] == ["2"]
    assert [queue.pop().asked.question for _ in range(5)] == ["1", "4", "5", "3", "6"]


class Heard:
    """Collects what becomes of a question."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.over = threading.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Done | Failed):
            self.over.set()

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Piece))


def answers(model: LoadedModel, **values: int | float) -> Answers:
    limits = Limits(**values)  # pyright: ignore[reportArgumentType]
    residents = Residents(model, 10**9, 60, 6 * 10**9, 10**8)
    return Answers(model, residents, limits, Metrics())


def test_many_questions_are_answered_as_one_by_one(model: LoadedModel) -> None:
    questions = [f"What is number {number}{'?' * number}" for number in range(9)]
    texts = []
    for active in (1, 9):
        crowd = answers(model, active=active)
        heard = [Heard() for _ in questions]
        for question, each in zip(questions, heard, strict=True):
            crowd.submit(Asked(owner="a", media=(), question=question, max_tokens=8), each)
        assert all(each.over.wait(120) for each in heard)
        texts.append([each.text for each in heard])
        crowd.close(5)
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 1


def test_too_many_wait_in_vain_and_gone_ones_make_room(model: LoadedModel) -> None:
    crowd = answers(model, active=1, waiting=3, waiting_per_key=2, answer_s=100)
    asked = Asked(owner="a", media=(), question="Tell me all?", max_tokens=2000)
    heard, crowd._endings = Heard(), ()  # no answer ends by itself
    first = crowd.submit(asked, heard)
    while not heard.events:
        heard.over.wait(0.01)
    later = [crowd.submit(asked, Heard()) for _ in range(2)]
    with pytest.raises(ApiError) as caught:
        crowd.submit(asked, Heard())
    assert caught.value.status == 429 and int(caught.value.headers()["Retry-After"]) >= 1
    other, late = Asked(owner="b", media=(), question="And me?", max_tokens=2), Heard()
    last = crowd.submit(other, late)
    with pytest.raises(ApiError, match="3 questions wait"):
        crowd.submit(Asked(owner="c", media=(), question="And me?"), Heard())
    for each in (first, *later):
        each.cancel()
    assert late.over.wait(120) and isinstance(late.events[-1], Done) and not last.is_cancelled
    assert not heard.over.is_set(), "nobody is told of the end of what nobody waits for"
    crowd.close(5)
    with pytest.raises(ApiError, match="stopping"):
        crowd.submit(asked, Heard())


def test_a_question_that_takes_too_long_is_told(model: LoadedModel) -> None:
    crowd, heard = answers(model, active=1, answer_s=0.05), Heard()
    crowd._endings = ()
    crowd.submit(Asked(owner="a", media=(), question="Tell me all?", max_tokens=30_000), heard)
    assert heard.over.wait(120)
    end = heard.events[-1]
    assert isinstance(end, Failed) and isinstance(end.error, ApiError) and end.error.code == "timeout"
    crowd.close(5)


def test_the_server_reads_a_video_as_ask_does(model: LoadedModel, films: list[Path], tmp_path: Path) -> None:
    """The text and the evidence are those of `longtake.ask`, with tokens dropped between layers too."""
    from longtake.core.budget import Budget
    from longtake.engine.remember import Wish, recall, remember
    from longtake.serve.resident import Medium

    budget = Budget(max_frames=8, max_new_tokens=8)
    path = remember(films[0], model, tmp_path, Wish(budget=budget, rule=SamplingRule(min_frames=8)))
    for reducer in (None, ProgressiveDrop(layers=(1, 2, 3))):
        model.model.reducer = reducer
        crowd, heard = answers(model), Heard()
        try:
            expected = ask(recall(path, model), "What happens?", model, budget)
            medium = Medium("video", "film", path, "film")
            crowd.submit(Asked(owner="a", media=(medium,), question="What happens?", max_tokens=8), heard)
            assert heard.over.wait(120), "no answer"
        finally:
            crowd.close(5)
            model.model.reducer = None
        reading = heard.events[0]
        assert isinstance(reading, Reading), heard.events
        assert heard.text.strip() == expected.text
        pairs = [(a.start_s, a.end_s) for a in reading.evidence]
        assert pairs == [(b.start_s, b.end_s) for b in expected.evidence]
