"""The counterfactual check: what is taken away, and what is reported."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from longtake.core.budget import Budget
from longtake.core.errors import ConfigError
from longtake.core.types import Answer, Span, VideoMemory, VisualTokens
from longtake.engine import verify as verify_module
from longtake.engine.ask import ask
from longtake.engine.select import subset
from longtake.engine.verify import cited_clips, spread_out, verify
from longtake.models.loaded import LoadedModel
from longtake.models.tiny import tiny_model

NEEDLE = 5


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return tiny_model()


def film(num_clips: int = 12) -> VideoMemory:
    """Return clips of four seconds; each token's first number is its clip's."""
    features = torch.randn(num_clips * 2, 64, generator=torch.Generator().manual_seed(0))
    clips = torch.arange(num_clips).repeat_interleave(2)
    features[:, 0] = clips
    tokens = VisualTokens(features, torch.ones(num_clips * 2, 4, dtype=torch.int64), clips)
    times = np.arange(num_clips * 4, dtype=np.float64).reshape(num_clips, 4)
    return VideoMemory(tokens, times, num_clips * 4.0, "film", {"kind": "video"})


def answer(text: str, *spans: tuple[float, float]) -> Answer:
    evidence = tuple(Span(start_s=start, end_s=end, score=0.5) for start, end in spans)
    return Answer(text=text, evidence=evidence, ledger={}, finish_reason="stop")


@pytest.mark.parametrize(
    "spans, expected",
    [
        ([(0.0, 4.0)], [0]),
        ([(3.0, 5.0)], [0, 1]),
        ([(20.0, 24.0), (40.0, 44.0)], [5, 10]),
        ([(8.0, 8.0)], [2]),
        ([(4.0, 12.0), (20.0, 44.0), (16.0, 18.0)], [1, 2]),
        ([], []),
    ],
)
def test_a_clip_is_cited_if_one_of_its_frames_is(spans: list[tuple[float, float]], expected: list[int]):
    assert cited_clips(film(), answer("", *spans).evidence) == expected


def test_others_are_spread_over_the_film():
    assert spread_out(list(range(10)), 2) == [2, 7]
    assert spread_out([1, 5, 9], 3) == [1, 5, 9]


def test_an_answer_that_hangs_on_what_it_cites_holds_and_one_that_does_not_fails(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
):
    """A model that sees the needle wherever it is: the check tells true evidence from wrong one."""

    def sees(memory: VideoMemory, *_: object, **__: object) -> Answer:
        return answer("red" if NEEDLE in memory.tokens.features[:, 0].tolist() else "nothing")

    monkeypatch.setattr(verify_module, "ask", sees)
    right = verify(film(), "What colour?", loaded, answer("red", (20.0, 24.0)))
    assert (right.without_cited, right.without_others, right.holds) == ("nothing", "red", True)
    assert right.removed_cited == (Span(start_s=20.0, end_s=23.0),)
    wrong = verify(film(), "What colour?", loaded, answer("red", (0.0, 4.0)))
    assert (wrong.without_cited, wrong.holds) == ("red", False)
    assert wrong.to_dict()["changes_without_cited"] is False


def test_the_answers_are_those_of_the_film_without_the_clips(loaded: LoadedModel):
    memory, budget = film(), Budget(max_new_tokens=3)
    first = dataclasses.replace(ask(memory, "What?", loaded, budget), evidence=answer("", (20.0, 28.0)).evidence)
    check = verify(memory, "What?", loaded, first, budget)
    kept = [clip for clip in range(12) if clip not in (5, 6)]
    assert check.without_cited == ask(subset(memory, kept), "What?", loaded, budget).text
    gone = [span.start_s // 4 for span in check.removed_others]
    assert len(gone) == 2 and not {5, 6} & set(gone)


@pytest.mark.parametrize("spans", [[], [(0.0, 24.0)]])
def test_evidence_that_leaves_nothing_to_compare_is_refused(spans: list[tuple[float, float]], loaded: LoadedModel):
    with pytest.raises(ConfigError, match="no part of 12 clips can be left out"):
        verify(film(), "What?", loaded, answer("", *spans))
