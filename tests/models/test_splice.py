"""Splicing: where visual tokens land, how images are ordered, and what does not fit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longtake.core.errors import PromptError
from longtake.models.splice import Visual, order_image_tokens, splice

WIDTH = 2


def embed(ids: torch.Tensor) -> torch.Tensor:
    return ids.float().unsqueeze(-1).expand(-1, WIDTH)


def block(first: int, count: int) -> torch.Tensor:
    return embed(torch.arange(first, first + count))


def test_table_of_a_mixed_batch():
    ids = torch.tensor([[1, -200, 2, 0], [3, 4, 5, 6]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    labels = torch.tensor([[-100, -100, 2, -100], [-100, 4, 5, 6]])
    got = splice(embed, ids, [block(100, 3)], attention_mask=mask, labels=labels)
    assert got.embeds[..., 0].tolist() == [[1, 100, 101, 102, 2], [3, 4, 5, 6, 0]]
    assert got.mask.tolist() == [[True] * 5, [True] * 4 + [False]]
    assert got.labels is not None
    assert got.labels.tolist() == [[-100, -100, -100, -100, 2], [-100, 4, 5, 6, -100]]
    assert (got.visual_start, got.num_visual, got.num_blocks) == ([1, 0], [3, 0], [1, 0])


def test_several_visuals_are_taken_in_order():
    got = splice(embed, torch.tensor([[-200, 1, -200]]), [block(100, 2), block(200, 1)])
    assert got.embeds[0, :, 0].tolist() == [100, 101, 1, 200]
    assert got.num_blocks == [2]


@settings(deadline=None, max_examples=25)
@given(left=st.booleans(), pads=st.integers(0, 4), place=st.integers(0, 3), count=st.integers(1, 5))
def test_side_of_the_padding_does_not_matter(left: bool, pads: int, place: int, count: int):
    text = [1, 2, 3]
    text.insert(place, -200)
    padding = [0] * pads
    row = padding + text if left else text + padding
    mask = [0] * pads + [1] * 4 if left else [1] * 4 + [0] * pads
    got = splice(embed, torch.tensor([row]), [block(100, count)], attention_mask=torch.tensor([mask]))
    plain = splice(embed, torch.tensor([text]), [block(100, count)])
    assert torch.equal(got.embeds, plain.embeds)
    assert got.lengths == [3 + count]
    assert got.visual_start == [place]


@pytest.mark.parametrize("num_blocks", [0, 2])
def test_number_of_visuals_must_match_the_placeholders(num_blocks: int):
    with pytest.raises(PromptError, match=f"{num_blocks} visuals arrived for 1 placeholders"):
        splice(embed, torch.tensor([[1, -200]]), [block(0, 1)] * num_blocks)


def test_prompt_beyond_the_context_says_by_how_much_and_at_the_limit_fits():
    ids = torch.tensor([[1, -200, 2]])
    assert splice(embed, ids, [block(0, 8)], max_length=10).lengths == [10]
    with pytest.raises(PromptError, match="11 tokens long, 1 more than the context of 10"):
        splice(embed, ids, [block(0, 9)], max_length=10)


def test_empty_prompt_is_refused():
    with pytest.raises(PromptError, match="no token"):
        splice(embed, torch.zeros(1, 0, dtype=torch.int64), [])


def test_image_tiles_become_one_map_behind_the_whole_image():
    # Two tiles side by side of 2 x 2 tokens each: rows of the map run through both tiles.
    tiles = torch.arange(12.0).view(3, 4, 1)
    assert order_image_tokens(tiles, (2, 1)).flatten().tolist() == [0, 1, 2, 3, 4, 5, 8, 9, 6, 7, 10, 11]
    assert order_image_tokens(tiles, (1, 2)).flatten().tolist() == list(range(12))
    assert order_image_tokens(tiles[:1], None).flatten().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("shape, grid", [((3, 4, 1), (2, 2)), ((3, 5, 1), (2, 1))])
def test_tiles_that_do_not_fit_the_grid_are_refused(shape: tuple[int, ...], grid: tuple[int, int]):
    with pytest.raises(PromptError):
        order_image_tokens(torch.zeros(shape), grid)


def test_visual_needs_pixels_or_features_and_not_both():
    for values in ({}, {"pixel_values": torch.zeros(1), "features": torch.zeros(1)}):
        with pytest.raises(PromptError, match="one of the two"):
            Visual(**values)
