"""A training run as one strict configuration, and `path=value` settings on top of it."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from longtake.core.config import StrictConfig, nearest_name
from longtake.core.errors import ConfigError
from longtake.data.samples import DataSettings

PARTS = ("tower", "connector", "language")
RecipeT = TypeVar("RecipeT", bound=StrictConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rates(StrictConfig):
    """Peak learning rate of each part of the model; a part at 0 is frozen.

    Raises: ConfigError for a rate below 0, or if nothing is trained.
    """

    tower: float = 0.0
    connector: float = 0.0
    language: float = 0.0

    def __post_init__(self) -> None:
        rates = [getattr(self, part) for part in PARTS]
        if not all(math.isfinite(rate) and rate >= 0 for rate in rates) or not any(rates):
            raise ConfigError(f"the learning rates are {rates}; expected none below 0 and one above; set rates.PART")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimSettings(StrictConfig):
    """How weights are moved: AdamW with torch's own betas and epsilon.

    batch: samples of a device at once; accumulation: how often before a step. max_steps: else `epochs` times the
    data. warmup: share of the steps in which the rate rises. pack_tokens: instead of `batch` samples at once, so many
    as fit into so many tokens (0: do not); the result is the same.

    Raises: ConfigError for values out of range.
    """

    batch: int = 1
    accumulation: int = 1
    epochs: int = 1
    max_steps: int | None = None
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = 0.03
    weight_decay: float = 0.0
    clip: float = 1.0
    pack_tokens: int = 0

    def __post_init__(self) -> None:
        if min(self.batch, self.accumulation, self.epochs) < 1 or (self.max_steps is not None and self.max_steps < 1):
            raise ConfigError(f"{self}: batch, accumulation, epochs and max_steps must be at least 1; raise them")
        if not 0 <= self.warmup < 1 or self.clip <= 0 or self.weight_decay < 0 or self.pack_tokens < 0:
            raise ConfigError(f"{self}: expected 0 <= warmup < 1, clip > 0 and no value below 0; change them")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraSettings(StrictConfig):
    """Low-rank adapters on the linear layers of some parts; rank 0 means none, and whole weights are trained.

    Raises: ConfigError for a part that cannot have them.
    """

    rank: int = 0
    alpha: float = 16.0
    dropout: float = 0.0
    parts: tuple[str, ...] = ("language",)

    def __post_init__(self) -> None:
        if self.rank < 0 or not 0 <= self.dropout < 1:
            raise ConfigError(f"{self}: expected a rank of at least 0 and a dropout below 1; change them")
        for part in self.parts:
            if part not in ("language", "connector"):
                raise ConfigError(f"lora.parts names {part!r}; {nearest_name(part, ['language', 'connector'])}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompressionSettings(StrictConfig):
    """Supervised compression tuning: a reducer is active in the forward pass, with another budget every step.

    method: a registered reducer with the field tokens_per_frame; none trains without. budgets: tokens a frame at the
    language model's input, of which each step takes one at random; where pictures are tiled they must be squares.
    fields: of the method, in a form such as {"schedule_kind": "linear"}. no_grad_frames: videos of so many frames
    pass tower and connector without a gradient (0: never).

    Source: XComp section 3.3 trains one budget, 16; the random ones are ours, so that one checkpoint serves many.
    """

    method: str | None = None
    budgets: tuple[int, ...] = (16,)
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    no_grad_frames: int = 0

    def __post_init__(self) -> None:
        if not self.budgets or min(self.budgets) < 1 or self.no_grad_frames < 0:
            raise ConfigError(f"{self}: expected budgets of at least 1 token a frame; change them")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavingSettings(StrictConfig):
    """When a run writes down where it stands. every: steps between checkpoints; keep: so many of the last.

    dtype: of the weights of the result; the released ones are bfloat16.

    Raises: ConfigError for counts below 1.
    """

    every: int = 500
    keep: int = 2
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    tensorboard: bool = True
    picture: bool = True

    def __post_init__(self) -> None:
        if min(self.every, self.keep) < 1:
            raise ConfigError(f"{self}: expected at least 1; raise them")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(StrictConfig):
    """One training run: which weights it starts from, what it trains, on what, how.

    model: a checkpoint's folder, hub name or preset. out: the folder of the run; its `model` is the result. precision:
    of the arithmetic; weights are kept in float32. sharded: FSDP2 over the processes instead of a copy in each.
    """

    name: str
    model: str = ""
    out: str = ""
    seed: int = 42
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    gradient_checkpointing: bool = True
    sharded: bool = False
    rates: Rates
    data: DataSettings = dataclasses.field(default_factory=DataSettings)
    optim: OptimSettings = dataclasses.field(default_factory=OptimSettings)
    lora: LoraSettings = dataclasses.field(default_factory=LoraSettings)
    compression: CompressionSettings = dataclasses.field(default_factory=CompressionSettings)
    saving: SavingSettings = dataclasses.field(default_factory=SavingSettings)


def with_settings(recipe: RecipeT, settings: Sequence[str]) -> RecipeT:
    """Apply texts of the form path=value, such as rates.tower=2e-6.

    Raises: ConfigError for an unknown path (with the nearest name), or a value of another type.
    """
    for text in settings:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set arrived as {text!r}; expected path=value, such as rates.tower=2e-6; write it so")
        recipe = _replaced(recipe, path.split("."), value, path)
    return recipe


def recipe_from_dict(values: Mapping[str, Any]) -> Recipe:
    """Build a recipe from the plain values of `to_dict`, as JSON gives them back.

    Raises: ConfigError on an unknown key.
    """
    return _from_plain(Recipe, values)


def _from_plain(kind: Any, values: Mapping[str, Any]) -> Any:
    hints = get_type_hints(kind)
    plain = {
        key: _from_plain(hints[key], value) if isinstance(value, Mapping) and _is_config(hints.get(key)) else value
        for key, value in values.items()
    }
    return kind.from_dict(plain)


def _is_config(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, StrictConfig)


def _replaced(config: Any, path: list[str], value: str, whole: str) -> Any:
    name, *rest = path
    hints = get_type_hints(type(config))
    known = [field.name for field in dataclasses.fields(config)]
    if name not in known:
        raise ConfigError(f"{whole}: {type(config).__name__} has no field {name!r}; {nearest_name(name, known)}")
    if rest and not _is_config(hints[name]):
        raise ConfigError(f"{whole}: {name} has no fields; expected a plain value; write {name}=value")
    if not rest and _is_config(hints[name]):
        fields = ", ".join(field.name for field in dataclasses.fields(hints[name]))
        raise ConfigError(f"{whole} has fields; expected one of them; write {whole}.FIELD=value ({fields})")
    new = _replaced(getattr(config, name), rest, value, whole) if rest else parse_value(value, hints[name], whole)
    return dataclasses.replace(config, **{name: new})


def parse_value(text: str, kind: Any, where: str) -> Any:
    """Read a text as the type of a field: numbers, true or false, one of some words, lists (JSON or by commas), none.

    Raises: ConfigError naming the type.
    """
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if text.lower() in ("none", "null"):
            return None
        return parse_value(text, next(part for part in inside if part is not type(None)), where)
    try:
        if origin is Literal:
            if text not in inside:
                raise ConfigError(f"{where} is {text!r}; {nearest_name(text, [str(word) for word in inside])}")
            return text
        if origin is tuple:
            items = json.loads(text) if text.startswith("[") else [part for part in text.split(",") if part]
            return tuple(parse_value(str(item), inside[0], where) for item in items)
        if origin is dict:
            return dict(json.loads(text))
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError, TypeError) as error:
        named = getattr(kind, "__name__", str(kind)) if origin is None else str(kind)
        raise ConfigError(f"{where} is {text!r}; expected a value of the type {named}; correct it") from error
