"""Configurations: flat released keys, the tower by substring, the views of each part."""

from __future__ import annotations

import pytest

from longtake.convert.config_reader import config_from_dict
from longtake.core.errors import CheckpointError, ConfigError
from longtake.models.configuration import VideoChatFlashConfig
from longtake.models.tiny import tiny_config


@pytest.mark.parametrize(
    "tower, kind, image_size, num_blocks",
    [
        ("umt-large", "umt", 224, 23),
        ("umt-hd-large", "umt", 448, 23),
        ("some/internvideo2-umt-hd", "internvideo2", 224, 39),
        ("internvideo2", "internvideo2", 224, 39),
    ],
)
def test_tower_is_chosen_by_substring_in_order(tower: str, kind: str, image_size: int, num_blocks: int):
    config = VideoChatFlashConfig(mm_vision_tower=tower)
    assert (config.tower_kind, config.vision_config.image_size) == (kind, image_size)
    assert config.vision_config.num_blocks == num_blocks


@pytest.mark.parametrize("tower", [None, "siglip-so400m"])
def test_unknown_tower_is_refused(tower: str | None):
    with pytest.raises(ConfigError, match="mm_vision_tower"):
        _ = VideoChatFlashConfig(mm_vision_tower=tower).vision_config


def test_unknown_key_of_a_released_file_is_ignored_and_kept():
    config = tiny_config(mm_tunable_parts="mm_mlp_adapter", max_num_pixels=14745600000)
    assert config.to_dict()["mm_tunable_parts"] == "mm_mlp_adapter"


def test_unknown_key_of_the_vision_shapes_is_refused_by_name():
    with pytest.raises(ConfigError, match="patch_size"):
        _ = tiny_config(vision={"kind": "umt", "patch_siz": 16}).vision_config


@pytest.mark.parametrize("model_type", ["videochat_flash_qwen", "llava_qwen", "llava_qwen_flash", "qwen2"])
def test_every_model_type_that_releases_used_is_accepted(model_type: str):
    values = tiny_config().to_dict() | {"model_type": model_type, "auto_map": {"AutoModel": "evil.py--Model"}}
    config = config_from_dict(values)
    assert config.model_type == "videochat_flash_qwen"
    assert not hasattr(config, "auto_map")


@pytest.mark.parametrize(
    "values, match",
    [
        ({"model_type": "qwen2"}, "mm_projector_type"),
        ({"model_type": "llama"}, "llama"),
        ({"mm_projector_type": "mlp2x_gelu", "mm_vision_tower": "umt"}, "mlp2x_gelu"),
        ({"mm_vision_tower": "umt", "mm_hidden_size": 1408}, "1408"),
        ({"mm_vision_tower": "clip"}, "clip"),
        ({"mm_vision_tower": "umt", "hidden_size": "many"}, "hidden_size"),
        ({"mm_vision_tower": "umt", "tokenizer_padding_side": "left"}, "left"),
    ],
)
def test_configuration_of_another_architecture_is_refused(values: dict[str, object], match: str):
    with pytest.raises(CheckpointError, match=match):
        config_from_dict(values)


def test_context_is_what_the_tokenizer_field_says_else_the_positions_else_the_default():
    assert tiny_config(tokenizer_model_max_length=500).context_length == 500
    assert tiny_config(tokenizer_model_max_length=None, max_position_embeddings=400).context_length == 400
    assert tiny_config(tokenizer_model_max_length=None, max_position_embeddings=10**6).context_length == 32768
