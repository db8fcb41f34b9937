"""The key: no two memories that could differ share one."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from longtake.memory.key import MemoryHeader, MemoryKey
from tests.memory.conftest import header, key

FIELDS = [field.name for field in dataclasses.fields(MemoryKey)]


def other_value(value: object, data: st.DataObject) -> object:
    """Draw another value of the field's kind."""
    if isinstance(value, str):
        return data.draw(st.text().filter(lambda drawn: drawn != value))
    if isinstance(value, tuple):
        return (data.draw(st.text()),)
    if isinstance(value, int):
        return data.draw(st.integers(0, 10**9).filter(lambda drawn: drawn != value))
    return data.draw(st.integers(0, 10**9))


@given(st.sampled_from(FIELDS), st.data())
def test_a_change_of_any_field_changes_the_key(name: str, data: st.DataObject):
    original = key()
    changed = dataclasses.replace(original, **{name: other_value(getattr(original, name), data)})
    assert changed.fingerprint() != original.fingerprint()


@given(st.text(), st.text())
def test_text_does_not_move_from_one_field_into_the_next(one: str, other: str):
    swapped = key(content=one, model=other).fingerprint() == key(content=other, model=one).fingerprint()
    assert swapped == (one == other)
    joined = key(content=one + other, model="").fingerprint() == key(content=one, model=other).fingerprint()
    assert joined == (other == "")


def test_the_key_is_of_full_width_and_the_same_after_a_round_trip():
    original = header(changes=("thinned",))
    again = MemoryHeader.from_bytes(original.to_bytes(), "film.ltm")
    assert again.identity == original.identity
    assert again.to_bytes() == original.to_bytes()
    assert len(again.identity.fingerprint()) == 64
    assert again.identity.fingerprint() == original.identity.fingerprint()
