"""The whole of PVC: without temporal parts against public code, with them against the reconstructed equations."""

from __future__ import annotations

import pytest
import torch

from longtake.core.chat import PLACEHOLDER_ID
from longtake.core.errors import ConfigError, PromptError
from longtake.models.pvc import group_entries, order_copies
from longtake.models.splice import Visual
from tests.parity.pvc_goldens import SEQUENCES, golden, model, sequence_case


@pytest.mark.parametrize("name", ["image", "tiles", "multi", "video"])
@torch.no_grad()
def test_without_temporal_parts_it_is_the_public_chat_model(name: str) -> None:
    facts, tensors = golden("f_chat_base_run")
    built = model("f_chat_base_state")
    pixels, ids = tensors[f"{name}.pixel_values"], tensors[f"{name}.input_ids"]
    if name == "video":
        visuals = [Visual(pixel_values=pixels)]
    else:
        visuals = [Visual(pixel_values=part, modality="image") for part in pixels.split(facts["groups"][name])]
    features = torch.cat([built.visual_tokens(visual) for visual in visuals])
    torch.testing.assert_close(features, tensors[f"{name}.features"].flatten(0, 1), **facts["tolerance"])
    torch.testing.assert_close(built(ids, visuals=visuals).logits, tensors[f"{name}.logits"], **facts["tolerance"])
    assert built.generate(ids, visuals, max_new_tokens=8).ids == tensors[f"{name}.greedy_8"].tolist()


@pytest.mark.parametrize("case", SEQUENCES)
@torch.no_grad()
def test_features_and_logits_are_the_reconstruction(case: str) -> None:
    built, visuals, tensors = sequence_case(case)
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out))
        for name, module in (("te", built.compressor.time), ("adaln_out", built.compressor.adaln))
    ]
    entries = torch.cat([visual.pixel_values for visual in visuals if visual.pixel_values is not None])
    flags, sizes = ([3], None) if "video" in case else ([2] * len(visuals), [len(v.pixel_values) for v in visuals])
    rows = torch.cat(built.encode_samples(entries, flags, sizes))
    for hook in hooks:
        hook.remove()
    tolerance = golden(case)[0]["tolerance"]
    for name, value in seen.items():
        torch.testing.assert_close(value, tensors[f"compressor.{name}"], **tolerance)
    torch.testing.assert_close(rows, tensors["features"], **tolerance)
    torch.testing.assert_close(built(tensors["input_ids"], visuals=visuals).logits, tensors["logits"], **tolerance)


@torch.no_grad()
def test_placeholders_and_runs_of_context_tokens_give_the_same_logits_in_a_padded_batch() -> None:
    built, visuals, tensors = sequence_case("r_a_multi")
    ids = tensors["input_ids"]
    context = built.config.img_context_token_id
    runs = (ids[0] == context) & ~torch.cat([torch.tensor([False]), ids[0, :-1] == context])
    short = ids[0].where(~runs, torch.tensor(PLACEHOLDER_ID))
    short = short[short != context]
    torch.testing.assert_close(
        built(short.unsqueeze(0), visuals=visuals).logits, tensors["logits"], atol=1e-4, rtol=1e-4
    )
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.int64), ids.repeat(2, 1)], dim=1)
    mask = torch.cat([torch.zeros(2, 3), torch.ones_like(ids).repeat(2, 1)], dim=1)
    both = built(padded, mask, visuals=[*visuals, *visuals]).logits
    torch.testing.assert_close(both, tensors["logits"].repeat(2, 1, 1), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_samples_of_all_kinds_in_one_batch_equal_each_alone() -> None:
    built, _, tensors = sequence_case("r_a_tiles")
    pixels = torch.cat([tensors["pixel_values"], torch.randn_like(tensors["pixel_values"])])
    together = built.encode_samples(pixels, [1, 3, 2], [1, 2, 1])
    alone = [
        built.encode_samples(part, [flag])[0] for part, flag in zip(pixels.split([1, 2, 1]), [1, 3, 2], strict=True)
    ]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert [len(rows) for rows in together] == [4, 2, 4]


def test_tiles_are_sequences_of_their_own_and_frames_are_one() -> None:
    config = model("r_a_state", 4).config
    assert group_entries(1, 3, config).sequence_lengths == group_entries(2, 3, config).sequence_lengths == (4, 4, 4)
    assert group_entries(3, 3, config).sequence_lengths == (3,)


def test_copies_follow_their_tile_or_the_tiles_their_copy() -> None:
    rows = torch.arange(4.0).reshape(4, 1, 1)  # tile 0 twice, tile 1 twice
    assert order_copies(rows, 2, "tile_major").flatten().tolist() == [0, 1, 2, 3]
    assert order_copies(rows, 2, "copy_major").flatten().tolist() == [0, 2, 1, 3]


@pytest.mark.parametrize("cut", [1, 2, 5])
@torch.no_grad()
def test_a_video_encoded_piece_by_piece_has_the_tokens_of_the_whole(cut: int) -> None:
    built, (video,), tensors = sequence_case("r_a_video5")
    encoder = built.encoder(5)
    pieces = [
        encoder.compress(encoder.encode(part.unsqueeze(1))).features for part in tensors["pixel_values"].split(cut)
    ]
    torch.testing.assert_close(
        built.projector(torch.cat(pieces)).flatten(0, 1), built.visual_tokens(video), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("length", [None, 0])
def test_a_video_of_unknown_length_is_not_begun(length: int | None) -> None:
    with pytest.raises(ConfigError, match="nominal length.*say how many frames"):
        model("r_a_state").encoder(length)


def test_more_frames_than_announced_are_refused() -> None:
    built, _, tensors = sequence_case("r_a_video5")
    encoder = built.encoder(3)
    with torch.no_grad(), pytest.raises(ConfigError, match="for a video of 3"):
        encoder.encode(tensors["pixel_values"].unsqueeze(1))


BAD_SAMPLES = [
    ([1], [3], "add up"),
    ([1, 1], None, "one flag for each"),
    ([4], None, "data_flag is 4"),
    ([1, 1], [0, 2], "at least one tile or frame"),
]


@pytest.mark.parametrize("flags, sizes, message", BAD_SAMPLES)
def test_samples_that_do_not_add_up_are_refused(flags: list[int], sizes: list[int] | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model("r_a_state").encode_samples(torch.zeros(2, 3, 112, 112), flags, sizes)


@pytest.mark.parametrize("drop", [0, 1])
@torch.no_grad()
def test_a_count_of_context_tokens_that_does_not_match_the_media_names_both(drop: int) -> None:
    built, visuals, tensors = sequence_case("r_a_multi")
    ids = tensors["input_ids"] if drop else torch.cat([tensors["input_ids"], torch.tensor([[111]])], dim=1)
    given = visuals[drop:]
    with pytest.raises(PromptError, match=rf"{16 * len(given)} visual tokens arrived for {33 - drop} context tokens"):
        built(ids, visuals=given)
