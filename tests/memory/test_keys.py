"""The file of a video's keys: whole or not there, damage is found, another key is told apart."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from longtake.core.errors import ConfigError, MemoryBusyError, MemoryFormatError
from longtake.memory.keys import KeysKey, KeysWriter, StoredKeys, aside_path, keys_path, remove_keys

KEY = KeysKey(
    memory="m" * 64,
    tokens_per_frame=None,
    model="w" * 64,
    selector="s" * 64,
    reducer=None,
    prefix=(1, 2, 3),
    num_chunks=2,
    device="cpu",
    longtake="0.1",
)
CHANGES = {
    "memory": "n" * 64,
    "tokens_per_frame": 1.0,
    "model": "x" * 64,
    "selector": "t" * 64,
    "reducer": "r" * 64,
    "prefix": (1, 2),
    "num_chunks": 3,
    "device": "cuda",
    "longtake": "0.2",
    "format_version": 99,
    "pipeline_version": 99,
}


def chunk(number: int) -> dict[str, torch.Tensor]:
    values = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(number))
    return {"keys.0": values.transpose(1, 2), "values.0": values.bfloat16()}


def write(memory: Path) -> Path:
    with KeysWriter(memory, KEY) as writer:
        writer.append(chunk(0))
        writer.append(chunk(1))
        return writer.finish()


def test_what_is_written_is_read_to_the_last_bit(tmp_path: Path):
    memory = tmp_path / "film.ltm"
    path = write(memory)
    assert path == keys_path(memory) == tmp_path / "film.keys.ltk"
    with StoredKeys(memory) as stored:
        stored.verify()
        assert stored.key == KEY and stored.num_chunks == 2 and stored.num_bytes == path.stat().st_size
        for number in range(2):
            for name, value in chunk(number).items():
                assert torch.equal(stored.chunk(number)[name], value)


def test_every_flipped_bit_and_every_cut_is_found(tmp_path: Path):
    memory = tmp_path / "film.ltm"
    path = write(memory)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(MemoryFormatError), StoredKeys(memory) as stored:
            stored.verify()
        path.write_bytes(whole[:at])
        with pytest.raises(MemoryFormatError), StoredKeys(memory) as stored:
            stored.verify()


def test_every_field_tells_keys_apart():
    assert set(CHANGES) == {field.name for field in dataclasses.fields(KeysKey)}
    for name, value in CHANGES.items():
        other = dataclasses.replace(KEY, **{name: value})
        assert other != KEY and KEY.differences(other) == [name]
        assert KeysKey.from_dict(other.to_dict()) == other


def test_keys_that_were_not_finished_are_not_there(tmp_path: Path):
    memory = tmp_path / "film.ltm"
    with KeysWriter(memory, KEY) as writer:
        writer.append(chunk(0))
        with pytest.raises(ConfigError, match="1 chunks were written; expected 2"):
            writer.finish()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(MemoryFormatError, match="--keep-keys"):
        StoredKeys(memory)


def test_a_writer_takes_over_what_a_killed_one_left_and_two_do_not_meet(tmp_path: Path):
    memory = tmp_path / "film.ltm"
    aside_path(memory).write_bytes(b"left behind" * 1000)
    with KeysWriter(memory, KEY) as writer:
        with pytest.raises(MemoryBusyError):
            KeysWriter(memory, KEY)
        writer.append(chunk(0))
        writer.append(chunk(1))
        writer.finish()
    assert [file.name for file in tmp_path.iterdir()] == ["film.keys.ltk"]
    size = keys_path(memory).stat().st_size
    assert remove_keys(memory) == size and remove_keys(memory) == 0
