"""The threshold for "no evidence found": chosen so that false alarms are few, kept beside the checkpoint, and used."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.cli.ask import answer_json
from longtake.core.budget import Budget
from longtake.core.errors import CheckpointError, ConfigError, StorageError
from longtake.core.types import VideoMemory
from longtake.engine import calibrate as calibrate_module
from longtake.engine.ask import ask
from longtake.engine.calibrate import calibrate, lowest_of
from longtake.engine.evidence import evidence_score
from longtake.engine.select import selector_of
from longtake.models.evidence_threshold import EvidenceThreshold, read_threshold, write_threshold
from longtake.models.loaded import LoadedModel
from longtake.models.naming import question_vector

SHORT = Budget(max_new_tokens=2)
QUESTION = "What is shown?"


@pytest.mark.parametrize(
    "num_scores, rate, place",  # the k-th smallest of 1 … n, k = floor(rate * (n + 1))
    [(19, 0.05, 1), (20, 0.05, 1), (39, 0.05, 2), (99, 0.1, 10), (9, 0.5, 5)],
)
def test_the_threshold_is_the_kth_smallest_score(num_scores: int, rate: float, place: int):
    scores = np.random.default_rng(0).permutation(num_scores) + 1.0
    assert lowest_of(scores, rate) == place


def test_too_few_questions_for_a_rate_are_refused_with_how_many_are_needed():
    with pytest.raises(ConfigError, match="at least 19"):
        lowest_of(np.arange(18.0), 0.05)


@settings(max_examples=20, deadline=None)
@given(st.integers(20, 200), st.floats(0.05, 0.5))
def test_at_most_the_stated_share_of_questions_is_called_without(count: int, rate: float):
    scores = np.random.default_rng(count).normal(size=count)
    assert (scores < lowest_of(scores, rate)).mean() <= rate


def test_new_questions_of_the_same_kind_are_called_without_about_as_often_as_stated():
    """Over many draws the mean rate on a new question is k / (n + 1), here 0.1."""
    rng = np.random.default_rng(1)
    rates = [(rng.normal(size=400) < lowest_of(rng.normal(size=99), 0.1)).mean() for _ in range(300)]
    assert np.mean(rates) == pytest.approx(0.1, abs=0.01)


def test_by_hand_two_kinds_that_overlap_a_little(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(calibrate_module, "DRAWS", 200)
    scores = [*(0.1 * i for i in range(1, 11)), 0.05, 0.15, 0.12, 0.55]
    marks, films = [True] * 10 + [False] * 4, [str(i % 5) for i in range(14)]
    found = calibrate(scores, marks, films, 0.2)
    assert found.threshold == 0.2  # the second smallest of ten: floor(0.2 * 11) = 2
    assert (found.false_alarms.value, found.caught.value) == (0.1, 0.75)
    # Pairs in which the one with evidence is ahead: 10, 9, 9 and 5 of 10.
    assert found.separation == pytest.approx(33 / 40)
    assert 0 <= found.false_alarms.low <= found.false_alarms.high <= 1 and found.caught.low < 0.75
    assert found == calibrate(scores, marks, films, 0.2)


def test_intervals_are_of_films_that_were_not_drawn(monkeypatch: pytest.MonkeyPatch):
    """One film whose scores are all low: chosen without it, the threshold calls all of its questions without."""
    monkeypatch.setattr(calibrate_module, "DRAWS", 300)
    scores = [*np.linspace(0.5, 1, 40), *np.linspace(0.0, 0.1, 10), 0.2, 0.3]
    films = [*(str(i % 4) for i in range(40)), *["odd"] * 10, "0", "1"]
    found = calibrate(scores, [True] * 50 + [False] * 2, films, 0.1)
    assert found.false_alarms.value <= 0.1 and found.false_alarms.high == 1


@pytest.mark.parametrize(
    "scores, marks, films, rate, text",
    [
        ([0.1, 0.2], [True, True], ["a", "b"], 0.5, "both kinds"),
        ([0.1, 0.2], [True], ["a", "b"], 0.5, "as many of each"),
        ([0.1, 0.2], [True, False], ["a", "a"], 0.5, "two films"),
        ([0.1, float("nan")], [True, False], ["a", "b"], 0.5, "1 scores that are no numbers"),
        ([0.1, 0.2], [True, False], ["a", "b"], 0.0, "a rate of 0.0"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(scores, marks, films, rate, text):
    with pytest.raises(ConfigError, match=text):
        calibrate(scores, marks, films, rate)


def limit(loaded: LoadedModel, threshold: float, **changes: object) -> LoadedModel:
    fields = {"threshold": threshold, "score": "attention", "false_alarm_rate": 0.05, "model": loaded.fingerprint}
    return dataclasses.replace(loaded, evidence=EvidenceThreshold.from_dict(fields | changes))


def test_a_threshold_comes_back_from_its_file_and_a_broken_one_is_refused(loaded: LoadedModel, tmp_path: Path):
    assert read_threshold(tmp_path) is None
    wanted = limit(loaded, 0.25, made_with="films").evidence
    assert wanted is not None
    path = write_threshold(wanted, tmp_path)
    assert read_threshold(tmp_path) == wanted and [one.name for one in tmp_path.iterdir()] == ["evidence.json"]
    for text in ("", "[]", "{}", path.read_text().replace("attention", "smell"), path.read_text() + "x"):
        path.write_text(text)
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_threshold(tmp_path)
    with pytest.raises(StorageError, match="cannot be written"):
        write_threshold(wanted, tmp_path / "nowhere")


def test_without_a_threshold_nothing_is_claimed(memory: VideoMemory, loaded: LoadedModel):
    answer = ask(memory, QUESTION, loaded, SHORT)
    assert answer.evidence_found is None and answer.evidence
    assert "evidence_found" not in answer_json(answer)


@pytest.mark.parametrize("score", ["attention", "naming"])
def test_nothing_below_the_threshold_counts_as_evidence(memory: VideoMemory, loaded: LoadedModel, score):
    plain = ask(memory, QUESTION, loaded, SHORT)
    at = evidence_score(score, plain.evidence, memory, QUESTION, loaded)
    below = ask(memory, QUESTION, limit(loaded, float(np.nextafter(at, 2)), score=score), SHORT)
    assert (below.evidence_found, below.evidence, below.text) == (False, (), plain.text)
    assert answer_json(below)["evidence_found"] is False
    enough = ask(memory, QUESTION, limit(loaded, at, score=score), SHORT)
    assert (enough.evidence_found, enough.evidence) == (True, plain.evidence)


def test_the_scores_by_hand(memory: VideoMemory, loaded: LoadedModel):
    spans = ask(memory, QUESTION, loaded, SHORT).evidence
    assert evidence_score("attention", spans, memory, QUESTION, loaded) == spans[0].score
    with torch.no_grad():
        normed = loaded.model.language.norm(memory.tokens.features)
    likeness = torch.cosine_similarity(normed, question_vector(loaded, QUESTION).unsqueeze(0))
    found = evidence_score("naming", spans, memory, QUESTION, loaded)
    assert found == pytest.approx(float(likeness.max()), abs=1e-5)


def test_no_claim_is_made_of_what_was_not_calibrated(memory: VideoMemory, loaded: LoadedModel):
    other = ask(memory, QUESTION, limit(loaded, 1.0, model="another"), SHORT)
    assert other.evidence_found is None and "another model or dtype" in str(other.ledger["notes"])
    chosen = ask(memory, QUESTION, limit(loaded, 1.0), SHORT, selector=selector_of(loaded, 8))
    assert chosen.evidence_kind == "relevance" and chosen.evidence_found is None
    assert ask([memory, memory], QUESTION, limit(loaded, 1.0), SHORT).evidence_found is None
    picture = dataclasses.replace(memory, settings=dict(memory.settings) | {"kind": "image"})
    assert ask(picture, QUESTION, limit(loaded, 1.0), SHORT).evidence_found is None
