"""The side lesson about order: a model that weighs later things more is right, one that does not is told."""

from __future__ import annotations

import math

import torch

from longtake.train.packed_questions import Proofs
from longtake.train.placing import Placing, first_places


def mentions(*about: tuple[int, list[int]]) -> Proofs:
    """Five visual tokens from row 2 on, and rows that mention some of them."""
    proves = torch.zeros(len(about), 5, dtype=torch.bool)
    for index, (_, tokens) in enumerate(about):
        proves[index, tokens] = True
    return Proofs(slice(2, 7), torch.tensor([row for row, _ in about]), proves)


def placing_by_first_number() -> Placing:
    placing = Placing(3, 1, 2)
    for scale in (placing.seen, placing.named):
        scale.weight.data = torch.tensor([[1.0, 0.0, 0.0]])
    return placing


def hidden_with(named: dict[int, float]) -> list[torch.Tensor]:
    """Visual tokens whose first number is their place; rows of text whose first number is given."""
    seen = torch.zeros(1, 12, 3)
    seen[0, 2:7, 0] = 10.0 * torch.arange(5)
    text = torch.zeros(1, 12, 3)
    for row, value in named.items():
        text[0, row, 0] = value
    return [torch.zeros(1, 12, 3), seen, text]


def test_what_no_clip_shows_is_left_out_and_the_first_clip_counts() -> None:
    rows, places = first_places(mentions((8, [3, 4]), (9, []), (10, [0])))
    assert rows.tolist() == [8, 10]
    assert places.tolist() == [3, 0]


def test_the_right_order_costs_next_to_nothing_and_the_wrong_one_its_gap() -> None:
    about = [mentions((8, [3]), (10, [0]))]
    right, share = placing_by_first_number()(hidden_with({8: 20.0, 10: 0.0}), about)
    wrong, other = placing_by_first_number()(hidden_with({8: 0.0, 10: 20.0}), about)
    assert (share, other) == (1.0, 0.0)
    assert right.item() < 1e-3
    assert math.isclose(wrong.item() - right.item(), 20.0, abs_tol=1e-3)


def test_a_film_that_mentions_one_thing_teaches_only_of_what_is_seen() -> None:
    loss, share = placing_by_first_number()(hidden_with({8: 1.0}), [mentions((8, [3]))])
    assert math.isnan(share)
    assert loss.item() < 1e-3
