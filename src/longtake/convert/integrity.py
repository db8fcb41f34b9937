"""The gate before weights are loaded: what the files hold, by their headers alone, against what the model needs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from longtake.convert.key_map import head_names, released_shapes
from longtake.convert.pvc_roles import NAMES_FILE, NameMatch, explain_names, read_table
from longtake.core.errors import CheckpointError
from longtake.models.gate import check_names
from longtake.models.loaded import AnyConfig
from longtake.models.pvc_configuration import PvcConfig

ROWS_AT_ONCE = 8192
HASH_WHOLE_BYTES = 64 * 2**20
HASH_SAMPLES = 16
HASH_SAMPLE_BYTES = 65536
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLES = ("model.safetensors", "pytorch_model.bin")


@dataclasses.dataclass(frozen=True)
class WeightFiles:
    """The files of a checkpoint's weights and the shape of every tensor in them, by released name.

    renamed: tensors whose names in the files are other ones, to the names under which this model knows them.
    """

    files: tuple[Path, ...]
    shapes: dict[str, tuple[int, ...]]
    home: dict[str, Path]
    renamed: dict[str, str] = dataclasses.field(default_factory=dict)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Find the files of the weights: one file or shards with an index, safetensors before .bin.

    Raises: CheckpointError if there are none, an index is damaged, or a shard that it names is missing.
    """
    for name in _INDEXES:
        index = folder / name
        if index.is_file():
            try:
                shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise CheckpointError(f"{index} is damaged ({error!r}); expected a weight_map; download it") from error
            for shard in shards:
                if not (folder / shard).is_file():
                    raise CheckpointError(
                        f"shard {shard} named by {name} is missing from {folder}; expected {len(shards)} shards; "
                        "download it into the folder"
                    )
            return tuple(folder / shard for shard in shards)
    for name in _SINGLES:
        if (folder / name).is_file():
            return (folder / name,)
    loose = sorted(p.name for p in folder.glob("*") if p.suffix in (".safetensors", ".bin", ".pt", ".pth"))
    there = f"; it has {', '.join(loose[:3])}, which is only a part of a model" if loose else ""
    raise CheckpointError(
        f"{folder} holds no weights{there}; expected {' or '.join(_SINGLES)} or their shards with an index; download "
        "the whole checkpoint"
    )


def _shapes_of(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    yield name, tuple(file.get_slice(name).get_shape())
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path} ({path.stat().st_size} bytes) is corrupt or truncated ({error}); expected a whole safetensors "
                "file; download it again"
            ) from error
        return
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read with weights-only loading ({type(error).__name__}); expected a pickled dict of "
            "tensors and nothing else; download it again, or convert it to safetensors where you trust it"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds no dict of tensors; expected one; export the state dict alone")
    for name, value in state.items():
        yield str(name), tuple(value.shape)


def read_weight_files(folder: Path) -> WeightFiles:
    """Read names and shapes of all tensors; of safetensors only the headers.

    Raises: CheckpointError on a missing, damaged or doubled file or tensor.
    """
    files = weight_files(folder)
    shapes: dict[str, tuple[int, ...]] = {}
    home: dict[str, Path] = {}
    for path in files:
        for name, shape in _shapes_of(path):
            if name in shapes:
                raise CheckpointError(
                    f"tensor {name} is in {home[name].name} and in {path.name}; expected it once; remove the stale file"
                )
            shapes[name], home[name] = shape, path
    return WeightFiles(files, shapes, home)


def head_is_tied(weights: WeightFiles, head: str, embedding: str) -> bool:
    """Say whether the head shares the embedding's weights: absent, or equal to it in every value."""
    if head not in weights.shapes:
        return True
    if weights.shapes[head] != weights.shapes.get(embedding):
        return False
    if weights.home[head].suffix != ".safetensors":
        states = [torch.load(weights.home[n], map_location="cpu", weights_only=True) for n in (head, embedding)]
        return torch.equal(states[0][head], states[1][embedding])
    with (
        safe_open(weights.home[head], framework="pt") as one,
        safe_open(weights.home[embedding], framework="pt") as two,
    ):
        theirs, own = one.get_slice(head), two.get_slice(embedding)
        rows = weights.shapes[head][0]
        return all(
            torch.equal(theirs[start : start + ROWS_AT_ONCE], own[start : start + ROWS_AT_ONCE])
            for start in range(0, rows, ROWS_AT_ONCE)
        )


def explain_folder(folder: Path, config: PvcConfig, names: Path | None = None) -> NameMatch:
    """Say what the names in a folder of PVC weights stand for, by the table `names` or that of the folder.

    Fills in what only the tensors say of the temporal layers; changes `config`.

    Raises: CheckpointError if the files or the table are damaged.
    """
    return _match(folder, config, read_weight_files(folder).shapes, names)


def _match(folder: Path, config: PvcConfig, shapes: dict[str, tuple[int, ...]], names: Path | None) -> NameMatch:
    table = names or folder / NAMES_FILE
    return explain_names(config, shapes, read_table(table) if names or table.is_file() else None)


def check_checkpoint(folder: Path, config: AnyConfig, names: Path | None = None) -> WeightFiles:
    """Check names and shapes against the configuration before anything is loaded, and settle the head.

    Sets config.tie_word_embeddings to what the files say; for PVC also what only the tensors say of the temporal
    layers. Names that no code has published are matched by shape and by the table `names`, or `pvc_names.json` of the
    folder.

    Raises: CheckpointError naming the tensor and the remedy; ConfigError if PVC's time scale is not known.
    """
    weights = read_weight_files(folder)
    found = weights.shapes
    if isinstance(config, PvcConfig):
        match = _match(folder, config, found, names)
        match.require_whole()
        _ = config.known_time_scale
        weights.renamed.update({name: match.to_ours(name) for name in found if match.to_ours(name) != name})
        found = {match.to_ours(name): shape for name, shape in found.items()}
    head, embedding = head_names(config)
    check_names(released_shapes(config), found, optional=(head,))
    config.tie_word_embeddings = head_is_tied(weights, head, embedding)
    return weights


def weights_identity(weights: WeightFiles) -> str:
    """Return a SHA-256 of the weights: of every byte of small files, of header, size and spread samples of large ones.

    Hashing sixteen gigabytes would take longer than loading them; two checkpoints that agree in all sampled places
    and differ elsewhere do not come out of training.
    """
    digest = hashlib.sha256()
    for path in weights.files:
        size = path.stat().st_size
        digest.update(f"{path.name}:{size};".encode())
        with path.open("rb") as file:
            if size <= HASH_WHOLE_BYTES:
                digest.update(file.read())
                continue
            digest.update(file.read(HASH_SAMPLE_BYTES))
            for sample in range(HASH_SAMPLES):
                file.seek((size - HASH_SAMPLE_BYTES) * sample // (HASH_SAMPLES - 1))
                digest.update(file.read(HASH_SAMPLE_BYTES))
    return digest.hexdigest()
