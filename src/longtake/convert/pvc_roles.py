"""Which tensors of a PVC checkpoint stand for which parts, where their names are unknown: by shape, else by a table.

Names are compared as patterns, with # for the number of a layer. A pattern that no table explains is matched only where
its shapes leave one choice; six matrices of a temporal layer and five of the compressor are alike, so these need a
table: `longtake convert --explain FOLDER` says which, and `pvc_names.json` beside the weights holds the answers.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from longtake.convert.key_map import released_shapes
from longtake.core.errors import CheckpointError
from longtake.models.pvc_configuration import PvcConfig
from longtake.nn.vision.progressive import TIME_CODE_WIDTH

NAMES_FILE = "pvc_names.json"
_LAYER = re.compile(r"((?:^|\.)layers\.)(\d+)(\.)")
_LANGUAGE, _TOWER, _TOWER_LAYER = "language_model.", "vision_model.", "vision_model.encoder.layers.#."
# What InternVL's own tower has; everything else in it is PVC's.
_STATIC = re.compile(
    re.escape(_TOWER_LAYER) + r"(attn\.(qkv|proj|q_norm|k_norm)|mlp\.fc[12]|norm[12])\.(weight|bias)"
    r"|" + re.escape(_TOWER_LAYER) + r"ls[12]|vision_model\.embeddings\..*"
)
_PROJECTIONS = 2  # matrices of the compressor without conditioning
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class OpenName:
    """A name of a checkpoint that nothing explains: its shape, the layers it is in, and what it may stand for."""

    name: str
    shape: Shape
    layers: tuple[int, ...]
    candidates: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class NameMatch:
    """What the names of a checkpoint stand for.

    renamed: names of the file to names of ours, as patterns, for those that differ. open: names that nothing explains.
    absent: names of ours that nothing in the file stands for and no open name may stand for.
    """

    renamed: Mapping[str, str]
    open: tuple[OpenName, ...]
    absent: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self)

    def to_ours(self, name: str) -> str:
        """Translate a tensor's name; one that is not renamed stays as it is."""
        pattern, number = split_number(name)
        ours = self.renamed.get(pattern)
        return name if ours is None else ours.replace("#", number)

    def require_whole(self) -> None:
        """Refuse a checkpoint with names that nothing explains.

        Raises: CheckpointError that names the first and says how to go on.
        """
        if not self.open:
            return
        first = self.open[0]
        may = f"may stand for {', '.join(first.candidates)}" if first.candidates else "stand for nothing known"
        raise CheckpointError(
            f"{len(self.open)} names of the checkpoint are unknown, first: {first.name} {list(first.shape)} ({may}); "
            "expected each to be explained, since shapes cannot tell; run `longtake convert --explain FOLDER`, fill in "
            f"the table that it shows and save it as {NAMES_FILE} beside the weights"
        )


def split_number(name: str) -> tuple[str, str]:
    """Return a tensor's name with # for the number of its layer, and that number."""
    found = _LAYER.search(name)
    return (name, "") if found is None else (_LAYER.sub(r"\1#\3", name, count=1), found[2])


def _patterns(shapes: Mapping[str, Shape]) -> tuple[dict[str, Shape], dict[str, tuple[int, ...]]]:
    """Return the shape of each pattern, and the layers in which it occurs."""
    by_pattern: dict[str, Shape] = {}
    layers: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        pattern, number = split_number(name)
        by_pattern.setdefault(pattern, tuple(shape))
        layers[pattern] = (*layers.get(pattern, ()), *((int(number),) if number else ()))
    return by_pattern, {pattern: tuple(sorted(numbers)) for pattern, numbers in layers.items()}


def settle_from_tensors(config: PvcConfig, shapes: Mapping[str, Shape]) -> None:
    """Fill in what the configuration does not say and the tensors do, for files that are not ours.

    Layers with tensors that InternVL lacks are temporal; a matrix that reads time codes outside of them is shared; a
    gate of one number is a scalar; a compressor of two matrices has a plain norm. Changes `config`.
    """
    if config.temporal_layers is not None:
        return
    patterns, layers = _patterns(shapes)
    own = [name for name in patterns if name.startswith(_TOWER) and not _STATIC.fullmatch(name)]
    config.temporal_layers = tuple(sorted({layer for name in own for layer in layers[name]}))
    reads_time = [name for name, shape in patterns.items() if len(shape) == 2 and shape[1] == TIME_CODE_WIDTH]
    config.share_time_mlp = any(name in reads_time for name in own if not layers[name])
    gates = [patterns[name] for name in own if layers[name] and not name.endswith((".weight", ".bias"))]
    config.gate = "scalar" if gates and all(shape in ((), (1,)) for shape in gates) else "vector"
    matrices = [name for name, shape in patterns.items() if _part(name) == "compressor" and len(shape) == 2]
    config.conditioning = "full" if len(matrices) > _PROJECTIONS else "none"


def _module_of(pattern: str) -> tuple[str, str]:
    """Return the module that a tensor belongs to, and which of its tensors it is."""
    module, _, last = pattern.rpartition(".")
    return (module, last) if last in ("weight", "bias") else (pattern, "")


def _modules(patterns: Mapping[str, Shape]) -> dict[str, tuple[str, frozenset[tuple[str, Shape]]]]:
    """Group tensors into modules: by name, the part of the model and the shapes of the module's tensors."""
    tensors: dict[str, set[tuple[str, Shape]]] = {}
    for pattern, shape in patterns.items():
        module, last = _module_of(pattern)
        tensors.setdefault(module, set()).add((last, shape))
    return {module: (_part(module), frozenset(found)) for module, found in tensors.items()}


def _part(name: str) -> str:
    for prefix in (_TOWER_LAYER, _TOWER, _LANGUAGE):
        if name.startswith(prefix):
            return prefix
    return "compressor"


def match_names(
    shapes: Mapping[str, Shape], expected: Mapping[str, Shape], table: Mapping[str, str] | None = None
) -> NameMatch:
    """Find what each tensor of a checkpoint stands for: by name, by the table, or because its shape leaves no choice.

    Raises: CheckpointError if the table names what is not there, or gives one name twice.
    """
    found, layers = _patterns(shapes)
    wanted, _ = _patterns(expected)
    renamed = _from_table(table or {}, found, wanted)
    left = {name: shape for name, shape in found.items() if name not in wanted and name not in renamed}
    taken = set(renamed.values())
    missing = {name: shape for name, shape in wanted.items() if name not in found and name not in taken}
    theirs, ours = _modules(left), _modules(missing)
    for module, kind in theirs.items():
        alike = [name for name, other in ours.items() if other == kind]
        if len(alike) == 1 and list(theirs.values()).count(kind) == 1:
            for last, _ in kind[1]:
                suffix = f".{last}" if last else ""
                renamed[module + suffix] = alike[0] + suffix
    candidates = {
        name: tuple(sorted(other for other, known in ours.items() if known == theirs[_module_of(name)[0]]))
        for name in left
        if name not in renamed
    }
    opened = tuple(
        OpenName(name, left[name], layers[name], tuple(_with_suffix(may, name) for may in mays))
        for name, mays in sorted(candidates.items())
    )
    hoped = {may for name in opened for may in name.candidates} | set(renamed.values())
    return NameMatch(renamed, opened, tuple(sorted(set(missing) - hoped)))


def _with_suffix(module: str, name: str) -> str:
    last = _module_of(name)[1]
    return f"{module}.{last}" if last else module


def _from_table(table: Mapping[str, str], found: Iterable[str], wanted: Iterable[str]) -> dict[str, str]:
    """Check a table; its rows may name modules, whose weight and bias then follow."""
    found, wanted = set(found), set(wanted)
    renamed: dict[str, str] = {}
    for theirs, ours in table.items():
        tensors = [name for name in found if name == theirs or _module_of(name)[0] == theirs]
        targets = [ours if name == theirs else _with_suffix(ours, name) for name in tensors]
        unknown = [name for name in targets if name not in wanted]
        if not tensors or unknown:
            what = f"{theirs!r}, which the checkpoint lacks" if not tensors else f"{unknown[0]!r}, which no model has"
            raise CheckpointError(
                f"the table of names has {what}; expected names of the checkpoint on the left and of `longtake convert "
                "--explain` on the right; correct it"
            )
        renamed |= dict(zip(tensors, targets, strict=True))
    doubled = sorted(name for name in set(renamed.values()) if list(renamed.values()).count(name) > 1 or name in found)
    if doubled:
        raise CheckpointError(
            f"the table of names gives {doubled[0]!r} to more than one tensor; expected one each; correct it"
        )
    return renamed


def read_table(path: Path) -> dict[str, str]:
    """Read a table of names: a JSON object from names of a checkpoint to names of ours.

    Raises: CheckpointError if there is no such file, or it is no such object.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"the table of names {path} cannot be read ({error}); expected a JSON object of names; correct it"
        ) from error
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise CheckpointError(
            f"the table of names {path} holds something else than names; expected a JSON object from each name of the "
            "checkpoint to one of the candidates; fill in every row"
        )
    return table


def explain_names(config: PvcConfig, shapes: Mapping[str, Shape], table: Mapping[str, str] | None = None) -> NameMatch:
    """Settle the configuration from the tensors and match their names; changes `config`.

    Raises: CheckpointError as `match_names`.
    """
    settle_from_tensors(config, shapes)
    shaped = copy.deepcopy(config)
    shaped.time_scale = config.time_scale or 1.0  # no shape depends on it, and to explain names it need not be known
    return match_names(shapes, released_shapes(shaped), table)
