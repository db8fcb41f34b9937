"""What a reply says: readers of answer letters and of time spans, ours and those of the published harnesses.

A reader of letters takes a reply and the choices and returns the letters that count as right if one of them is the
answer: one letter, nothing where none can be read, and several only by PVC's matcher, whose leniency is thereby seen.
The published ones are kept to the letter, with their mistakes, to reproduce numbers; none of them guesses: where one
draws a random option, nothing is returned here, which counts as unparsed and wrong.

Source: VideoChat-Flash lmms-eval fork, PVC eval/mvbench, lmms-eval 0.7.3; what each returned for 56 replies is frozen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from longtake.core.config import nearest_name
from longtake.core.errors import ConfigError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
Reader = Callable[[str, Sequence[str]], str]
Span = tuple[float, float]
SpanReader = Callable[[str], Span | None]

_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_ALONE = r"(?<![A-Za-z0-9'’])([A-Z])(?![A-Za-z0-9'’])"
_PHRASE = r"(?i:answer|option|choice)(?i:\s+is|\s+would\s+be)?\s*:?\s*|答案[是为]\s*|(?i:i\s+(?:choose|pick|select))\s+"


def letters_of(choices: Sequence[str]) -> str:
    """Return the letters of so many choices: `ABCD` of four.

    Raises: ConfigError for more choices than there are letters.
    """
    if len(choices) > len(LETTERS):
        raise ConfigError(f"{len(choices)} choices arrived; expected at most {len(LETTERS)}; ask with fewer")
    return LETTERS[: len(choices)]


def read_letter(reply: str, choices: Sequence[str]) -> str:
    """Read the letter that a careful person would read; nothing where a reply is ambiguous.

    In this order: the whole reply or its first line is a letter; it begins with a marked letter, `B.` or `(B)`; a
    letter follows words such as `answer is`, the last time they occur; one letter stands in brackets; one capital
    letter stands alone; the reply is the text of one choice. What a model thought aloud is left out. An article is no
    letter: `a`, or a lone `A` before a word. A letter beyond the choices counts for nothing.
    """
    known = letters_of(choices)
    text = _THOUGHT.sub(" ", reply).strip()
    for whole in (text, text.split("\n")[0]):
        bare = whole.strip(" \t\"'`*()[].,:;!").upper()
        if len(bare) == 1:
            return bare if bare in known else ""
    for found in (_leading(text), _after_phrase(text)):
        if found:
            return found if found in known else ""
    if found := _only(r"\(([A-Za-z])\)", text, known) or _only(_ALONE, text, known):
        return found
    said = _plain(text)
    same = [letter for letter, choice in zip(known, choices, strict=True) if said and said == _plain(choice)]
    return same[0] if len(same) == 1 else ""


def _leading(text: str) -> str:
    """Return the letter that a reply begins with, marked as one: `B.`, `(b)`, `**B**`, `B: …`, `B because …`."""
    marked = re.match(r"[\s\"'`*]*(?:\(([A-Za-z])\)|([A-Z])\s*[.,:;)*!])", text)
    if marked:
        return (marked[1] or marked[2]).upper()
    bare = re.match(r"([B-HJ-Z])\s+(?!(?:or|and)\b)", text)
    return bare[1] if bare else ""


def _after_phrase(text: str) -> str:
    """Return the last letter that words such as `the answer is` announce; a small one only where a clause ends."""
    found = re.findall(rf"(?:{_PHRASE})[\s\"'`*(]*(?:([A-Z])(?![A-Za-z0-9])|([a-z])(?=[)\"'`*]*(?:$|[.,;!\n])))", text)
    found = [(large or small).upper() for large, small in found]
    return found[-1] if found else ""


def _only(pattern: str, text: str, known: str) -> str:
    """Return the letter that a pattern finds, if it finds just one, however often; an article alone is none."""
    found = [match for match in re.finditer(pattern, text) if match[1].upper() in known]
    articles = [re.match(r"A\s+(?!(?:or|and)\b)[a-z]", text[match.start() :]) for match in found]
    letters = {match[1].upper() for match in found}
    return letters.pop() if len(letters) == 1 and not all(articles) else ""


def _plain(text: str) -> str:
    """Return a text without its own letter, case and marks at its ends, to compare replies with choices."""
    return re.sub(r"^\(?[A-Z][).:]+\s*", "", text.strip()).strip(" \t\"'`*.,:;!").casefold()


def vcf_first_letter(reply: str, choices: Sequence[str]) -> str:
    """Read as MVBench, MLVU and LVBench are scored: `B. text` at the start, else the first letter that stands alone.

    Quirks kept: an article is option A; letters go to E whatever the choices; small letters count; 32 full stops at
    most are taken out.

    Source: VideoChat-Flash lmms-eval fork, mvbench, mcq_acc.
    """
    marked = re.match(r"^([A-E])\.\s*(.+)$", reply.strip(), re.IGNORECASE)
    if marked:
        return _among(marked[1].upper(), choices)
    text = reply.replace("\n", " ").replace("\t", " ").strip()
    joined = re.search(r"\d,\d", text) is not None
    cleaned = text
    for mark in ';/[]"{}()=+\\_-><@`,?!':
        apart = f"{mark} " in text or f" {mark}" in text or joined
        cleaned = cleaned.replace(mark, "" if apart else " ")
    cleaned = re.sub(r"\.(?!\d)", "", cleaned, count=32)
    for mark in ("'", '"', ")", "("):
        cleaned = cleaned.strip(mark)
    alone = re.search(r"\b([A-E])\b", cleaned.strip(), re.IGNORECASE)
    return _among(alone[1].upper(), choices) if alone else ""


def _among(letter: str, choices: Sequence[str]) -> str:
    """Return a letter if it is one of a choice."""
    return letter if letter in letters_of(choices) else ""


def _unmarked(reply: str, marks: Sequence[str]) -> str:
    """Take marks off both ends, each once in turn, and put a space at either end."""
    for mark in marks:
        reply = reply.strip(mark)
    return f" {reply} "


_MMMU_MARKS = (",", ".", "!", "?", ";", ":", "'")


def mmmu_last(reply: str, choices: Sequence[str]) -> str:
    """Read as LongVideoBench and NExT-QA are scored: `(B)`, else `B `, else `B.`, else a choice's text; last one wins.

    Quirks kept: `RED` holds `D `; `AB` is B; a text counts only in replies of more than five words. The published one
    draws a random option where nothing is found; here that is nothing.

    Source: MMMU eval_utils, as in VideoChat-Flash's longvideobench.
    """
    text, known = _unmarked(reply, _MMMU_MARKS), letters_of(choices)
    for before, after, sought in (("(", ")", "({})"), ("", " ", " {} "), ("", ".", " {} ")):
        found = [letter for letter in known if f"{before}{letter}{after}" in text]
        if found:
            return max(found, key=lambda letter: text.rfind(sought.format(letter))) if len(found) > 1 else found[0]
    return _by_text(text, choices, last=True)


def _by_text(text: str, choices: Sequence[str], *, last: bool) -> str:
    """Return the letter of the choice whose text stands last, or first, in a reply of more than five words."""
    if len(text.split()) <= 5:
        return ""
    low = text.lower()
    places = {
        letter: low.rfind(choice.strip().lower()) for letter, choice in zip(letters_of(choices), choices, strict=True)
    }
    found = [letter for letter, place in places.items() if place >= 0]
    pick = max if last else min
    return pick(found, key=lambda letter: places[letter]) if found else ""


def mmmu_first(reply: str, choices: Sequence[str]) -> str:
    """Read as EgoSchema is scored: every `(B)`, `B ` and `B.` counts, and the first wins.

    Where a letter occurs several times its last place counts. Nothing instead of a random option, as `mmmu_last`.

    Source: lmms-eval 0.7.3, egoschema.
    """
    text, known = _unmarked(reply, _MMMU_MARKS), letters_of(choices)
    forms = [form.format(letter) for form in ("({})", "{} ", "{}.") for letter in known]
    found = [form for form in forms if form in text]
    if found:
        return min(found, key=text.rfind).strip("(). ")
    return _by_text(text, choices, last=False)


def videomme(reply: str, choices: Sequence[str]) -> str:
    """Read as Video-MME is scored: the first A, B, C or D anywhere, once some opening words are taken out.

    Quirks kept: `Both A and C` is B; `Answer: (B)` is A, since `Answer` begins with one; two opening words are never
    found, for want of a comma.

    Source: VideoChat-Flash lmms-eval fork, videomme.
    """
    text = reply.strip()
    for opening in ("The best answer is", "The correct answer is", "The answer is", "The answer"):
        text = text.replace(opening, "")
    text = text.replace("The best option isThe correct option is", "").replace("Best answer:Best option:", "")
    found = re.search("[ABCD]", text)
    return _among(found[0], choices) if found else ""


def perception_test(reply: str, choices: Sequence[str]) -> str:
    """Read as Perception Test is scored: the first capital A to D that stands alone.

    Source: VideoChat-Flash lmms-eval fork, perceptiontest.
    """
    found = re.search(r"\b([A-D])\b", reply.strip())
    return _among(found[1], choices) if found else ""


_RANKED_PHRASES = (
    *("answer is", "correct option is", "best option is", "choice is", "correct choice is"),
    *("i choose", "i select", "i pick", "옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)
# What a letter is written in, and how much that is trusted.
_RANKED_FORMS = (("({})", 6), ("{}.", 5), ("{}:", 4), ("{})", 3), ("{} ", 2))


def lmms_ranked(reply: str, choices: Sequence[str]) -> str:
    """Read as lmms-eval 0.7.3 does: every form of a letter is found, the most trusted one wins, the last of equals.

    Start of the reply 10, its end 9, behind words such as `answer is` 7, `(B)` 6, `B.` 5, `B:` 4, `B)` 3, `B ` 2, and
    only if there is none of these, anywhere.

    Source: lmms-eval 0.7.3, mcq_extract.
    """
    known = letters_of(choices)
    text = _unmarked(reply.strip(), (*_MMMU_MARKS[:6], "'", '"')) if reply.strip() else ""
    bare, low = text.strip(), text.lower()
    found: list[tuple[int, int, str]] = []
    for form, rank in _RANKED_FORMS:
        found += [(rank, text.rfind(form.format(one)), one) for one in known if form.format(one) in text]
    for phrase in _RANKED_PHRASES:
        behind = low.find(phrase) + len(phrase) if phrase in low else len(text)
        found += [(7, text.find(one, behind), one) for one in known if one in text[behind:]]
    for one in known:
        if bare.startswith(one) and not bare[1:2].isalpha():
            found.append((10, 0, one))
        if bare.endswith(one) and not bare[-2:-1].isalpha():
            found.append((9, len(text) - 1, one))
    found = found or [(0, text.rfind(one), one) for one in known if one in text]
    return max(found, key=lambda one: one[:2])[2] if found else ""


def pvc_contains(reply: str, choices: Sequence[str]) -> str:
    """Return every letter that PVC would count as right: the first word is part of `(b)`, or `(b)` is part of it.

    An empty first word is part of everything: an empty reply, one that begins with a space and a lone bracket are right
    whatever the answer.

    Source: PVC eval/mvbench, check_ans.
    """
    first = reply.replace("Answer: ", "").lower().split(" ")[0]
    options = {letter: f"({letter.lower()})" for letter in letters_of(choices)}
    return "".join(one for one, gold in options.items() if first.replace(".", "") in gold or gold in first)


READERS: Mapping[str, Reader] = {
    "letter": read_letter,
    "vcf-first-letter": vcf_first_letter,
    "mmmu-last": mmmu_last,
    "mmmu-first": mmmu_first,
    "videomme": videomme,
    "perception-test": perception_test,
    "lmms-ranked": lmms_ranked,
    "pvc-contains": pvc_contains,
}

_NUMBER = r"(\d+(?:\.\d+)?)"
_CLOCK = r"(?:\d{1,2}:)?\d{1,2}:\d{2}(?:\.\d+)?"
_EXAMPLE = "a specific example is : 20.8 - 30.0 seconds"
_TIME_WORDS = ("start", "end", "happen")


def read_span(reply: str) -> Span | None:
    """Read two times, in seconds, in order: clock times or seconds, joined by `to`, `-`, `and` or `until`.

    The first pair so joined; else, if there are just two times, those. None if there is neither.
    """
    text = _THOUGHT.sub(" ", reply).lower()
    time = rf"({_CLOCK}|\d+(?:\.\d+)?)\s*(?:s|sec|secs|seconds?)?"
    pair = re.search(rf"(?<![\d:.]){time}\s*(?:-|–|—|to|and|until)\s*{time}(?![\d:])", text)
    times = [pair[1], pair[2]] if pair else re.findall(rf"(?<![\w:.])({_CLOCK}|\d+(?:\.\d+)?)(?![\d:])", text)
    return _ordered(_seconds(times[0]), _seconds(times[1])) if len(times) == 2 else None


def vcf_span(reply: str) -> Span | None:
    """Read as VideoChat-Flash's Charades-STA script: the first `number - number`, `to` being a hyphen anywhere.

    Else the first number of each line with a word of starting or ending, in pairs; else such clock times. Quirks kept:
    `0:12 to 0:18` is 0 to 12.

    Source: VideoChat-Flash lmms-eval fork, temporal_grounding, extract_time.
    """
    text = reply.lower().replace(_EXAMPLE, "").replace("to", "-")
    pair = re.search(r"(\d+\.*\d*)\s*-\s*(\d+\.*\d*)", text)
    if pair:
        return _ordered(float(pair[1]), float(pair[2]))
    lines = [line for line in re.split(r"[!?\n]", text) if any(word in line for word in _TIME_WORDS)]
    for pattern in (r"\b(\d+\.\d+\b|\b\d+)\b", r"\b(\d{1,2}:\d{2}:\d{2})\b"):
        found = [match[1] for match in (re.search(pattern, line) for line in lines) if match]
        if len(found) > 1:
            return _ordered(_seconds(found[0]), _seconds(found[1]))
    return None


def lmms_span(reply: str) -> Span | None:
    """Read as lmms-eval 0.7.3's Charades-STA: like `vcf_span`, but clock times come first and units may follow.

    Source: lmms-eval 0.7.3, charades_sta, extract_time.
    """
    text = reply.lower().replace(_EXAMPLE, "").replace("to", "-")
    every = re.split(r"[!?\n]", text)
    lines = [line for line in every if any(word in line for word in _TIME_WORDS)] or every
    clock = r"(\d{1,2}:\d{2}(?::\d{2})?)"
    for pattern in (rf"\b{clock}\s*[–-]\s*{clock}\b", rf"{_NUMBER}\s*[–-]\s*{_NUMBER}"):
        for line in lines:
            if pair := re.search(pattern, line):
                return _ordered(_seconds(pair[1]), _seconds(pair[2]))
    clocks = [time for line in lines for time in re.findall(rf"\b{clock}\b", line)]
    firsts = [match[1] for match in (re.search(rf"\b{_NUMBER}\b", line) for line in lines) if match]
    for times in (clocks, firsts):
        if len(times) > 1:
            return _ordered(_seconds(times[0]), _seconds(times[1]))
    for line in lines:
        if pair := re.search(rf"{_NUMBER}\s*s?\s*[–-]\s*{_NUMBER}\s*s?", line):
            return _ordered(_seconds(pair[1]), _seconds(pair[2]))
    return None


def _seconds(text: str) -> float:
    """Return the seconds of `12.5`, `1:02` or `0:01:02`."""
    total = 0.0
    for part in text.rstrip(".").split(":"):
        total = 60 * total + float(part)
    return total


def _ordered(first: float, second: float) -> Span:
    return (min(first, second), max(first, second))


SPAN_READERS: Mapping[str, SpanReader] = {"span": read_span, "vcf-span": vcf_span, "lmms-span": lmms_span}


def find_reader(name: str) -> Reader:
    """Return the reader of letters of that name.

    Raises: ConfigError with the nearest known name.
    """
    if name not in READERS:
        raise ConfigError(f"no reader of letters is called {name!r}; {nearest_name(name, list(READERS))}")
    return READERS[name]


def find_span_reader(name: str) -> SpanReader:
    """Return the reader of time spans of that name.

    Raises: ConfigError with the nearest known name.
    """
    if name not in SPAN_READERS:
        raise ConfigError(f"no reader of time spans is called {name!r}; {nearest_name(name, list(SPAN_READERS))}")
    return SPAN_READERS[name]
