"""Contrast pairs: the same film but for the one thing that a question of order, motion or number asks for."""

from __future__ import annotations

import dataclasses

from longtake.core.errors import ConfigError
from longtake.media.filmstrip.asker import Question, motion_answers, questions_stream, touches_held_out
from longtake.media.filmstrip.attributes import DIRECTIONS
from longtake.media.filmstrip.ladder import HAPPENING_FRAMES
from longtake.media.filmstrip.timeline import GAP_FRAMES
from longtake.media.filmstrip.world import Card, Film, Happening, Motion

TWIN_TASKS = ("OR", "MO", "CO")


def twin(film: Film, question: Question) -> tuple[Film, Question]:
    """Return a film in which the answer is another one, and the same question with that answer and its proof.

    Its text and choices stay. OR: two cards change places in time. MO: the ball goes another way (to the opposite
    side, turns the other way, bounces once more or less, …). CO: it happens once more or less. Who does not look is
    right at most once in the two films.

    Raises: ConfigError for another task, what is not shown, or a film too crowded for it to happen once more.
    """
    makers = {"OR": _other_order, "MO": _other_motion, "CO": _other_count}
    if question.task not in makers or not question.subject:
        raise ConfigError(
            f"a question of {question.task} about {question.subject or 'what is not shown'} arrived; expected one of "
            f"{', '.join(TWIN_TASKS)} about what is shown; ask for a twin of such a question"
        )
    return makers[question.task](film, question)


def _other_order(film: Film, question: Question) -> tuple[Film, Question]:
    """Let the first card that is asked for change places with another one that the choices name."""
    names = {str(card.key): number for number, card in enumerate(film.cards)}
    if question.kind == "OR first":
        chosen = [names[choice] for choice in question.choices]
    else:
        chosen = [int(number) for number in question.subject]
    first = int(question.subject[0])
    others = [number for number in chosen if number != first]
    other = others[int(questions_stream(film, "twin", question.text).integers(len(others)))]
    cards = list(film.cards)
    for here, there in ((first, other), (other, first)):
        span = film.cards[there]
        cards[here] = dataclasses.replace(film.cards[here], start=span.start, stop=span.stop)
    named = [other] if question.kind == "OR first" else sorted(chosen, key=lambda number: cards[number].start)
    keys = [str(cards[number].key) for number in named]
    answer = ", ".join(keys) if question.kind == "OR three" else keys[0]
    changed = dataclasses.replace(film, cards=tuple(cards))
    return changed, _answered(changed, question, answer, [cards[number] for number in named], tuple(named))


def _other_motion(film: Film, question: Question) -> tuple[Film, Question]:
    number = int(question.subject[0])
    motion = film.motions[number]
    if question.kind == "MO":
        motion = dataclasses.replace(motion, direction=(motion.direction + len(DIRECTIONS) // 2) % len(DIRECTIONS))
    elif question.kind == "MO turn":
        motion = dataclasses.replace(motion, turn=-motion.turn)
    elif question.kind == "MO bounce":
        motion = dataclasses.replace(motion, value=_beside(motion.value))
    else:
        motion = dataclasses.replace(motion, value=-motion.value)
    motions = (*film.motions[:number], motion, *film.motions[number + 1 :])
    answer = next(answer for kind, answer, _ in motion_answers(motion) if kind == question.kind)
    changed = dataclasses.replace(film, motions=motions)
    return changed, _answered(changed, question, answer, [motion], question.subject)


def _other_count(film: Film, question: Question) -> tuple[Film, Question]:
    kind = str(question.subject[0])
    there = [one for one in film.happenings if one.kind == kind]
    rng = questions_stream(film, "twin", kind)
    if _beside(len(there)) < len(there):
        gone = there[int(rng.integers(len(there)))]
        happenings = [one for one in film.happenings if one is not gone]
    else:
        free = _free_frames(film, HAPPENING_FRAMES[kind])
        if not free:
            raise ConfigError(
                f"a film of {film.spec.num_frames} frames arrived that is full; expected room for one more {kind}; "
                "ask for fewer tasks or cards, or a longer film"
            )
        happenings = [*film.happenings, Happening(kind, free[int(rng.integers(len(free)))])]
    changed = dataclasses.replace(film, happenings=tuple(sorted(happenings, key=lambda one: one.frame)))
    counted = [one for one in changed.happenings if one.kind == kind]
    return changed, _answered(changed, question, str(len(counted)), counted, question.subject)


def _beside(number: int) -> int:
    """Return 2 for 1 and 1 for 2, 4 for 3 and 3 for 4, and so on: with its twin, each number is as frequent."""
    return number + 1 if number % 2 else number - 1


def _free_frames(film: Film, length: int) -> list[int]:
    """List the frames at which something of this length could start, a gap away from all that is shown."""
    shown = [(one.start, one.stop) for one in (*film.cards, *film.happenings, *film.motions, *film.posters)]
    return [
        frame
        for frame in range(film.spec.num_frames - length + 1)
        if all(frame + length + GAP_FRAMES <= start or stop + GAP_FRAMES <= frame for start, stop in shown)
    ]


def _answered(
    film: Film,
    question: Question,
    answer: str,
    proof: list[Card] | list[Motion] | list[Happening],
    subject: tuple[int | str, ...],
) -> Question:
    spans = tuple(film.span_s(shown) for shown in proof)
    unseen = touches_held_out(proof)
    return dataclasses.replace(question, answer=answer, spans_s=spans, subject=subject, is_held_out=unseen)
