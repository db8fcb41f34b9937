"""No tensor of the walk is ever as long as the sequence in two dimensions."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from longtake.nn.language.walk import decode_step, extend, prefill
from tests.nn.tiny_language import REDUCERS, WIDTH, language, plain_walk, prompts

LONG = 400  # no other dimension of the tiny model is nearly as long
VISUAL = [(8, LONG, 24)]


class Squares(TorchDispatchMode):
    """Note every result of an operation, forward or backward, that has two dimensions of at least `side`."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side
        self.found: list[tuple[str, tuple[int, ...]]] = []
        self.seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor):
                self.seen += 1
                if sum(size >= self.side for size in tensor.shape) >= 2:
                    self.found.append((str(func), tuple(tensor.shape)))
        return out


def test_spy_sees_the_square_of_a_walk_that_makes_one() -> None:
    inputs = prompts(VISUAL)
    with torch.no_grad(), Squares(LONG) as squares:
        plain_walk(language(), inputs, REDUCERS["attention"], "renumber", lambda kept: [len(kept) - 1])
    assert squares.found


@pytest.mark.parametrize("rule", ["renumber", "keep"])
@pytest.mark.parametrize("name", REDUCERS)
def test_prefill_and_decoding_make_no_square(name: str, rule: Any) -> None:
    model, inputs = language(), prompts([*VISUAL, (2, 40, 8)])
    with torch.no_grad(), Squares(LONG) as squares:
        out = prefill(model, inputs, reducer=REDUCERS[name], position_rule=rule)
        assert out.cache is not None
        decode_step(model, torch.randn(2, 1, WIDTH), out.cache)
        extend(model, torch.randn(2, 5, WIDTH), out.cache)
    assert squares.seen > 100
    assert squares.found == []


@pytest.mark.parametrize("name", ["none", "attention", "lp_comp"])
def test_chunked_prefill_is_never_wider_than_its_chunk(name: str) -> None:
    with torch.no_grad(), Squares(65) as squares:
        prefill(language(), prompts(VISUAL), reducer=REDUCERS[name], chunk_size=64)
    # 64 rows of a chunk by the keys so far is as large as it gets.
    assert squares.found == []


@pytest.mark.parametrize("rows", ["few", "every second token"])
@pytest.mark.parametrize("name", ["uniform", "attention", "lp_comp"])
def test_training_step_makes_no_square_however_many_answers_there_are(name: str, rows: str) -> None:
    text = 2 * LONG
    inputs = prompts([(8, LONG, text)])
    last = 8 + LONG + text - 1
    asked = [last - 40, last - 9] if rows == "few" else list(range(7 + LONG, last, 2))
    inputs = dataclasses.replace(inputs, embeds=inputs.embeds.requires_grad_(), score_rows=[asked])
    with Squares(LONG) as squares:
        out = prefill(language(), inputs, reducer=REDUCERS[name], use_cache=False)
        out.hidden.square().sum().backward()
    assert inputs.embeds.grad is not None
    assert squares.found == []
