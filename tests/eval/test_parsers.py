"""Readers of letters and spans: ours as a table one can check by eye, the published ones against what they returned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longtake.core.errors import ConfigError
from longtake.eval.answers import overlap
from longtake.eval.parsers import (
    READERS,
    SPAN_READERS,
    find_reader,
    find_span_reader,
    letters_of,
    read_letter,
    read_span,
)

GOLDENS = Path(__file__).parents[3] / "shared" / "data" / "goldens_eval" / "extractor_cases.json"
CHOICES = ("red", "blue", "green", "yellow")
# Which reader reproduces which column of the goldens.
COLUMNS = {
    "vcf-first-letter": "E1_vcf_match_by_gold",
    "mmmu-last": "E2_vcf_longvideobench",
    "videomme": "videomme_vcf",
    "perception-test": "perceptiontest_vcf_index",
    "lmms-ranked": "lmms_eval_073_ranked",
    "pvc-contains": "pvc_mvbench_match_by_gold",
}


def goldens() -> dict[str, Any]:
    if not GOLDENS.is_file():
        pytest.skip("the goldens beside the checkout are not there")
    return json.loads(GOLDENS.read_text(encoding="utf-8"))


def letters(value: Any) -> str:
    """Turn what a column holds into letters: a letter, RANDOM, an index, or a match for each gold letter."""
    if isinstance(value, dict):
        return "".join(letter for letter, matches in value.items() if matches)
    if isinstance(value, int):
        return "ABCD"[value] if value >= 0 else ""
    return "" if value == "RANDOM" else value


@pytest.mark.shared
@pytest.mark.parametrize("name", COLUMNS)
def test_published_reader_returns_what_the_published_script_returned(name: str) -> None:
    cases = goldens()
    assert len(cases["cases"]) == 56
    read = {case["reply"]: READERS[name](case["reply"], CHOICES) for case in cases["cases"]}
    assert read == {case["reply"]: letters(case[COLUMNS[name]]) for case in cases["cases"]}


@pytest.mark.shared
@pytest.mark.parametrize("name, column", [("vcf-span", "vcf"), ("lmms-span", "lmms_eval_073")])
def test_published_span_reader_returns_what_the_published_script_returned(name: str, column: str) -> None:
    for case in goldens()["time_cases"]:
        expected = tuple(case[column][0]) if case[column] else None
        assert SPAN_READERS[name](case["reply"]) == expected, case["reply"]


@pytest.mark.shared
def test_overlap_is_the_published_one() -> None:
    for first, second, expected in goldens()["iou"]:
        assert overlap((float(first[0]), float(first[1])), (float(second[0]), float(second[1]))) == pytest.approx(
            expected
        )


@pytest.mark.parametrize(
    "reply, expected",
    [
        ("B", "B"),
        ("b", "B"),
        ("(b)", "B"),
        (" (B)", "B"),
        ("**B**", "B"),
        ("B. blue", "B"),
        ("B) blue", "B"),
        ("B: blue", "B"),
        ("The answer is B", "B"),
        ("Answer: (B)", "B"),
        ("The correct answer is: (c)", "C"),
        ("option c", "C"),
        ("Option A is a car", "A"),
        ("答案是B", "B"),
        ("It is a C", "C"),
        ("I think a B", "B"),
        ("1. A", "A"),
        ("D\nA", "D"),
        ("A, because B is wrong", "A"),
        ("B because A is wrong", "B"),
        ("<think>maybe A</think> C", "C"),
        ("blue", "B"),
        ("Blue.", "B"),
        # Nothing can be read.
        ("", ""),
        ("(", ""),
        ("a red car", ""),
        ("a person opens the door", ""),
        ("A person opens the door", ""),
        ("The answer is a car.", ""),
        ("Both A and C", ""),
        ("A or B", ""),
        ("A because B is wrong", ""),
        ("E", ""),
        ("(E) other", ""),
        ("Because", ""),
        ("Dog", ""),
        ("AB", ""),
        ("A1", ""),
        ("None of the above", ""),
        ("not blue", ""),
    ],
)
def test_our_reader_reads_what_a_person_would(reply: str, expected: str) -> None:
    assert read_letter(reply, CHOICES) == expected


@pytest.mark.parametrize(
    "reply, ours, vcf",
    [
        ("a person opens the door", "", "A"),
        ("It is a C", "C", "A"),
        ("I think a B", "B", "A"),
    ],
)
def test_the_article_is_option_a_only_for_the_published_reader(reply: str, ours: str, vcf: str) -> None:
    assert (read_letter(reply, CHOICES), READERS["vcf-first-letter"](reply, CHOICES)) == (ours, vcf)


def test_the_first_and_the_last_hit_differ() -> None:
    assert READERS["mmmu-last"]("A or B", CHOICES) == "B"
    assert READERS["mmmu-first"]("A or B", CHOICES) == "A"
    assert READERS["mmmu-first"]("one could say that it was blue", CHOICES) == "B"
    assert READERS["mmmu-first"]("nothing of the kind", CHOICES) == ""


def test_an_empty_reply_is_right_only_for_pvc() -> None:
    assert {name for name, read in READERS.items() if read("", CHOICES)} == {"pvc-contains"}
    assert READERS["pvc-contains"]("", CHOICES) == "ABCD"


@given(reply=st.text(max_size=60), count=st.integers(1, 6))
def test_readers_return_letters_of_the_choices(reply: str, count: int) -> None:
    choices = CHOICES[:count] + ("white", "black")[: max(0, count - 4)]
    for name, read in READERS.items():
        found = read(reply, choices)
        assert set(found) <= set(letters_of(choices))
        assert len(found) <= 1 or name == "pvc-contains"


@given(letter=st.sampled_from("ABCD"), form=st.sampled_from(["{}", "({})", "{}.", "{}) so it is", "The answer is {}."]))
def test_plain_replies_are_read_alike_by_ours_and_by_the_ranked_one(letter: str, form: str) -> None:
    assert read_letter(form.format(letter), CHOICES) == READERS["lmms-ranked"](form.format(letter), CHOICES) == letter


@pytest.mark.parametrize(
    "reply, expected",
    [
        ("The event happens in the 24.3 - 30.4 seconds.", (24.3, 30.4)),
        ("from 0:12 to 0:18", (12.0, 18.0)),
        ("It starts at 00:00:18.\nIt ends at 00:01:23.", (18.0, 83.0)),
        ("starts at 5 seconds and ends at 9.5 seconds", (5.0, 9.5)),
        ("between 4 and 8", (4.0, 8.0)),
        ("12s - 15s", (12.0, 15.0)),
        ("30.4 - 24.3", (24.3, 30.4)),
        ("", None),
        ("no event", None),
        ("at 7", None),
    ],
)
def test_our_span_reader(reply: str, expected: tuple[float, float] | None) -> None:
    assert read_span(reply) == expected


@given(reply=st.text(alphabet="0123456789.:- tosendhappin\n", max_size=50))
def test_spans_are_in_order(reply: str) -> None:
    for read in SPAN_READERS.values():
        span = read(reply)
        assert span is None or span[0] <= span[1]


def test_overlap_of_nothing_is_nothing() -> None:
    assert overlap((3.0, 3.0), (3.0, 3.0)) == 0.0


def test_unknown_readers_are_refused_with_a_hint() -> None:
    with pytest.raises(ConfigError, match="lmms-ranked"):
        find_reader("lmms_ranked")
    with pytest.raises(ConfigError, match="vcf-span"):
        find_span_reader("vcf_span")
    with pytest.raises(ConfigError, match="27 choices"):
        letters_of(["x"] * 27)
