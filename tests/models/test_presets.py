"""The five released checkpoints on the meta device: names, shapes, counts and bytes of the published tables."""

from __future__ import annotations

import pytest

from longtake.convert.key_map import meta_model, released_shapes
from longtake.core.errors import ConfigError
from longtake.models.presets import PRESETS, preset
from longtake.models.released_names import RENAMINGS, to_ours, to_released

# Preset: tower, image size, hidden size, rows of the vocabulary, bytes of all parameters at two bytes each (in GB).
TABLE = [
    ("videochat_flash_2b", "umt", 448, 1536, 151936, 4.1430),
    ("videochat_flash_7b_224", "umt", 224, 3584, 152064, 15.85),
    ("videochat_flash_7b", "umt", 448, 3584, 152064, 15.85),
    ("videochat_flash_7b_1m", "umt", 224, 3584, 152064, 15.85),
    ("videochat_flash_7b_internvideo2", "internvideo2", 224, 3584, 152064, 17.24),
]
TOWER_PREFIX = "model.vision_tower.vision_tower."


def count(shapes: dict[str, tuple[int, ...]]) -> int:
    total = 0
    for shape in shapes.values():
        size = 1
        for extent in shape:
            size *= extent
        total += size
    return total


def language_table(h: int, i: int, kv: int, vocab: int) -> dict[str, tuple[int, ...]]:
    table: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocab, h),
        "model.norm.weight": (h,),
        "lm_head.weight": (vocab, h),
    }
    for n in range(28):
        layer = f"model.layers.{n}."
        for name, rows in (("q", h), ("k", kv), ("v", kv)):
            table[f"{layer}self_attn.{name}_proj.weight"] = (rows, h)
            table[f"{layer}self_attn.{name}_proj.bias"] = (rows,)
        table[f"{layer}self_attn.o_proj.weight"] = (h, h)
        table[f"{layer}mlp.gate_proj.weight"] = table[f"{layer}mlp.up_proj.weight"] = (i, h)
        table[f"{layer}mlp.down_proj.weight"] = (h, i)
        table[f"{layer}input_layernorm.weight"] = table[f"{layer}post_attention_layernorm.weight"] = (h,)
    return table


def umt_table() -> dict[str, tuple[int, ...]]:
    prefix = TOWER_PREFIX + "encoder."
    table: dict[str, tuple[int, ...]] = {
        f"{prefix}patch_embed.proj.weight": (1024, 3, 1, 16, 16),
        f"{prefix}patch_embed.proj.bias": (1024,),
        f"{prefix}vision_layernorm.weight": (1024,),
        f"{prefix}vision_layernorm.bias": (1024,),
    }
    for b in range(23):
        block = f"{prefix}blocks.{b}."
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "attn.q_bias", "attn.v_bias"):
            table[block + name] = (1024,)
        table |= {f"{block}attn.qkv.weight": (3072, 1024), f"{block}attn.proj.weight": (1024, 1024)}
        table |= {f"{block}attn.proj.bias": (1024,), f"{block}mlp.fc1.weight": (4096, 1024)}
        table |= {f"{block}mlp.fc1.bias": (4096,), f"{block}mlp.fc2.weight": (1024, 4096)}
        table[f"{block}mlp.fc2.bias"] = (1024,)
    return table


def internvideo2_table() -> dict[str, tuple[int, ...]]:
    table: dict[str, tuple[int, ...]] = {
        f"{TOWER_PREFIX}cls_token": (1, 1, 1408),
        f"{TOWER_PREFIX}pos_embed": (1, 1025, 1408),
        f"{TOWER_PREFIX}img_pos_embed": (1, 257, 1408),
        f"{TOWER_PREFIX}patch_embed.proj.weight": (1408, 3, 1, 14, 14),
        f"{TOWER_PREFIX}patch_embed.proj.bias": (1408,),
    }
    for b in range(39):
        block = f"{TOWER_PREFIX}blocks.{b}."
        for name in ("norm1", "norm2", "ls1", "ls2", "attn.q_norm", "attn.k_norm"):
            table[f"{block}{name}.weight"] = (1408,)
        table |= {f"{block}attn.qkv.weight": (4224, 1408), f"{block}attn.proj.weight": (1408, 1408)}
        table |= {f"{block}attn.proj.bias": (1408,), f"{block}mlp.fc1.weight": (6144, 1408)}
        table |= {f"{block}mlp.fc1.bias": (6144,), f"{block}mlp.fc2.weight": (1408, 6144)}
        table[f"{block}mlp.fc2.bias"] = (1408,)
    return table


@pytest.mark.parametrize("name, tower, image_size, hidden, vocab, gigabytes", TABLE)
def test_names_shapes_and_bytes_of_every_preset_are_the_published_ones(
    name: str, tower: str, image_size: int, hidden: int, vocab: int, gigabytes: float
):
    config = preset(name).config()
    shapes = released_shapes(config)
    width, vision = (1024, umt_table()) if tower == "umt" else (1408, internvideo2_table())
    inner, key_width = (8960, 256) if hidden == 1536 else (18944, 512)
    connector = {
        "model.mm_projector.mlp.0.weight": (hidden, width),
        "model.mm_projector.mlp.0.bias": (hidden,),
        "model.mm_projector.mlp.2.weight": (hidden, hidden),
        "model.mm_projector.mlp.2.bias": (hidden,),
    }
    assert shapes == language_table(hidden, inner, key_width, vocab) | vision | connector
    assert (len(vision), count(vision)) == ((303, 290_479_104) if tower == "umt" else (512, 987_337_728))
    assert config.vision_config.image_size == image_size
    assert 2 * count(shapes) / 1e9 == pytest.approx(gigabytes, abs=5e-5 if gigabytes < 5 else 5e-3)


def test_tied_2b_checkpoint_would_be_smaller():
    shapes = released_shapes(preset("videochat_flash_2b").config())
    del shapes["lm_head.weight"]
    assert 2 * count(shapes) / 1e9 == pytest.approx(3.6763, abs=5e-5)


def test_meta_models_hold_no_memory_and_rope_base_follows_the_language_model():
    model = meta_model(preset("videochat_flash_7b_1m").config())
    assert {value.device.type for value in model.state_dict().values()} == {"meta"}
    assert model.config.text_config.rope_parameters["rope_theta"] == 1e7
    assert not model.config.text_config.use_sliding_window


def test_presets_are_found_by_repository_too_and_misspelt_ones_name_the_nearest():
    assert preset("OpenGVLab/VideoChat-Flash-Qwen2_5-2B_res448") is PRESETS["videochat_flash_2b"]
    with pytest.raises(ConfigError, match="videochat_flash_2b"):
        preset("videochat_flash_2bb")


@pytest.mark.parametrize("name", sorted(released_shapes(preset("videochat_flash_2b").config()))[::25])
def test_names_translate_there_and_back(name: str):
    assert to_released(to_ours(name)) == name


def test_no_renaming_shadows_a_later_one():
    for earlier, (released, _) in enumerate(RENAMINGS):
        assert not any(later.startswith(released) for later, _ in RENAMINGS[earlier + 1 :])
