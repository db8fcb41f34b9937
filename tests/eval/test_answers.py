from __future__ import annotations

import pytest

from longtake.eval.answers import overlap, read_glyph, read_number, read_phrase, read_span

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("K", "K"),
        (" k. ", "K"),
        ('"K"', "K"),
        ("The letter is K.", "K"),
        ("It is (K)", "K"),
        ("A red star", None),
        ("a person opens the door", None),
        ("K or M?", "M"),
        ("", None),
        ("KM", None),
    ],
)
def test_a_glyph_is_the_answer_or_its_last_word(text: str, expected: str | None) -> None:
    assert read_glyph(text, LETTERS) == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ("up right", "up right"),
        ("It moved Up Right.", "up right"),
        ("upwards", None),
        ("up, then left", None),
        ("left left", "left"),
    ],
)
def test_a_phrase_inside_a_longer_one_does_not_count(text: str, expected: str | None) -> None:
    assert read_phrase(text, ("up", "up right", "left", "right")) == expected


@pytest.mark.parametrize(
    "text, expected",
    [("3", "3"), ("3 times", "3"), ("03", "3"), ("2 or 3", None), ("2.5", None), ("", None), ("4. It is 4.", "4")],
)
def test_a_number_is_whole_and_alone(text: str, expected: str | None) -> None:
    assert read_number(text) == expected


def test_spans_and_their_overlap() -> None:
    assert read_span("from 12.5 to 9 seconds") == (9.0, 12.5)
    assert read_span("at 7 s") is None
    assert overlap((0.0, 4.0), (2.0, 6.0)) == pytest.approx(2 / 6)
    assert overlap((0.0, 1.0), (2.0, 3.0)) == 0
    assert overlap((1.0, 1.0), (1.0, 1.0)) == 0
