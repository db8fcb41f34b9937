"""The ledger: every second is charged once, to the innermost stage that is open."""

from __future__ import annotations

import itertools

import pytest

from longtake.engine import ledger as ledger_module
from longtake.engine.ledger import Ledger, peak_memory_bytes


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    """Replace the clock by one that tests move by hand."""

    class Clock:
        now = 100.0

        def perf_counter(self) -> float:
            return self.now

    hand = Clock()
    monkeypatch.setattr(ledger_module, "time", hand)
    return hand


def seconds(ledger: Ledger) -> dict[str, float]:
    return {name: cost.seconds for name, cost in ledger.stages.items()}


def test_stages_and_the_rest_add_up_to_the_total(clock):
    ledger = Ledger()
    clock.now += 1
    with ledger.stage("decode"):
        clock.now += 2
    clock.now += 0.5
    with ledger.stage("vision"):
        clock.now += 4
    ledger.close()
    clock.now += 100
    result = ledger.to_dict()
    assert seconds(ledger) == {"decode": 2, "vision": 4}
    assert (result["total_s"], result["unstaged_s"]) == (7.5, 1.5)


def test_time_in_a_nested_stage_is_not_charged_twice(clock):
    ledger = Ledger()
    with ledger.stage("outer"):
        clock.now += 1
        with ledger.stage("inner"):
            clock.now += 10
            with ledger.stage("outer"):
                clock.now += 100
        clock.now += 1000
    assert seconds(ledger) == {"outer": 1101, "inner": 10}
    assert ledger.total_s == 1111


def test_a_stage_held_open_by_a_generator_rests_while_the_consumer_has_a_stage_open(clock):
    ledger = Ledger()

    def produce():
        for _ in range(3):
            with ledger.stage("decode"):
                clock.now += 1
            yield

    for _ in produce():
        with ledger.stage("vision"):
            clock.now += 10
    assert seconds(ledger) == {"decode": 3, "vision": 30}


def test_a_stage_that_fails_is_charged_and_closed(clock):
    ledger = Ledger()
    with pytest.raises(KeyError), ledger.stage("decode"):
        clock.now += 3
        raise KeyError
    clock.now += 5
    assert seconds(ledger) == {"decode": 3}
    assert ledger.to_dict()["unstaged_s"] == 5


def test_bytes_and_tokens_add_up_over_visits(clock):
    ledger = Ledger()
    for size, tokens in itertools.product((1, 10), (100, 200)):
        with ledger.stage("vision") as cost:
            cost.add(bytes=size, tokens=tokens)
    assert ledger.to_dict()["stages"] == {"vision": {"seconds": 0.0, "bytes": 22, "tokens": 600}}


def test_closing_twice_keeps_the_first_end(clock):
    ledger = Ledger()
    clock.now += 1
    ledger.close()
    clock.now += 1
    ledger.close()
    assert ledger.total_s == 1


def test_notes_are_kept_once_in_order():
    ledger = Ledger()
    for note in ("decoder pyav", "device cpu", "decoder pyav"):
        ledger.note(note)
    assert ledger.to_dict()["notes"] == ["decoder pyav", "device cpu"]


def test_peak_memory_is_in_bytes():
    assert 50e6 < peak_memory_bytes() < 1e12
