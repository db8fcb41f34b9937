from __future__ import annotations

from tests.memory.stress import wrong_answers


def test_no_thread_gets_the_answer_about_another_video():
    """`python -m tests.memory.stress 10000` is the long form."""
    assert wrong_answers(100) == 0
