"""PVC's configuration: the released file's keys, the language model as a Llama, what is asked for and what refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from longtake.convert.config_reader import config_from_dict
from longtake.core.errors import CheckpointError, ConfigError
from longtake.models.presets import preset
from longtake.models.pvc_configuration import PvcConfig, llama_config
from longtake.models.splice import Visual
from longtake.models.tiny_pvc import random_pvc, tiny_pvc_config

INTERNLM2: dict[str, Any] = {
    "model_type": "internlm2",
    "architectures": ["InternLM2ForCausalLM"],
    "auto_map": {"AutoModel": "modeling_internlm2.InternLM2ForCausalLM"},
    "attn_implementation": "flash_attention_2",
    "vocab_size": 92553,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5,
    "bias": False,
    "hidden_act": "silu",
    "rope_theta": 1_000_000,
    "rope_scaling": {"type": "dynamic", "factor": 2.0},
    "tie_word_embeddings": False,
    "top_k": 50,
    "pruned_heads": {},
}
# What a released file is expected to look like, with keys that mean nothing to a model.
RELEASED: dict[str, Any] = {
    "model_type": "pvc_internvl",
    "architectures": ["PVCInternVLModel"],
    "auto_map": {"AutoModel": "modeling_pvc_internvl.PVCInternVLModel"},
    "vision_config": {
        "architectures": ["InternVisionTemporalModel"],
        "model_type": "intern_vit_6b",
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "use_flash_attn": True,
        "drop_path_rate": 0.1,
    },
    "llm_config": INTERNLM2,
    "use_temporal": True,
    "force_image_size": 448,
    "downsample_ratio": 0.25,
    "template": "internlm2-chat",
    "ps_version": "v2",
    "image_repeat_time": 4,
    "use_backbone_lora": 0,
    "dtype": "bfloat16",
}


def test_a_released_file_is_read_and_what_it_does_not_say_stays_unknown():
    config: Any = config_from_dict(RELEASED)
    assert isinstance(config, PvcConfig)
    assert (config.tokens_per_frame, config.shuffle_factor, config.context_length) == (64, 4, 32768)
    assert (config.temporal_layers, config.time_scale) == (None, None)
    assert config.vision_config.image_size == 448 and config.vision_config.num_attention_heads == 16
    text = config.get_text_config()
    assert text.rope_parameters == {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1_000_000}
    assert (text.attention_bias, text.tie_word_embeddings) == (False, False)


def test_layers_and_time_scale_are_asked_for_never_guessed():
    config: Any = config_from_dict(RELEASED)
    with pytest.raises(ConfigError, match=r"temporal_layers.*pvc_8b"):
        _ = config.tower_config
    config.temporal_layers = (22, 23)
    with pytest.raises(ConfigError, match=r"time_scale.*pvc_8b"):
        _ = config.tower_config
    config.time_scale = 1.0
    assert config.tower_config.temporal_layers == (22, 23)


def test_without_anything_that_knows_time_no_scale_is_needed():
    config: Any = config_from_dict(RELEASED | {"use_temporal": False, "conditioning": "none"})
    assert config.tower_config.temporal_layers == () and config.known_time_scale == 1.0


REFUSED = [
    ({"select_layer": -2}, "select_layer is -2"),
    ({"force_image_size": 224}, "force_image_size is 224"),
    ({"template": "internvl2_5"}, "template is 'internvl2_5'"),
    ({"tile_order": "random"}, "tile_order is 'random'"),
    ({"pad2square": True}, "pad2square is True"),
    ({"image_repeat_time": 0}, "image_repeat_time 0"),
    ({"llm_config": {key: value for key, value in INTERNLM2.items() if key != "rope_theta"}}, "lacks rope_theta"),
    ({"model_type": "internvl_chat"}, "model_type 'internvl_chat'"),
]


@pytest.mark.parametrize("change, message", REFUSED)
def test_settings_that_no_public_code_explains_are_refused(change: dict[str, Any], message: str):
    with pytest.raises(CheckpointError, match=message):
        config_from_dict(RELEASED | change)


def test_a_configuration_survives_being_written_and_read():
    config = preset("pvc_8b").config()
    again: Any = PvcConfig(**config.to_dict())
    assert again.to_dict() == config.to_dict()
    assert tuple(again.temporal_layers) == tuple(range(16, 24))


def test_a_llama_configuration_is_taken_as_it_is():
    text = llama_config(INTERNLM2)
    assert llama_config(text.to_dict()).to_dict() == text.to_dict()


@torch.no_grad()
def test_the_order_of_copies_is_a_setting():
    pixels = torch.randn(2, 3, 56, 56)
    tokens = {
        order: random_pvc(tiny_pvc_config(tile_order=order)).visual_tokens(
            Visual(pixel_values=pixels, modality="image")
        )
        for order in ("tile_major", "copy_major")
    }
    by_tile = tokens["tile_major"].unflatten(0, (2, 4, 4))  # tile, copy, token
    torch.testing.assert_close(tokens["copy_major"].unflatten(0, (4, 2, 4)), by_tile.transpose(0, 1))


@torch.no_grad()
def test_frames_of_a_video_are_blocks_of_their_own_unless_it_is_one():
    video = Visual(pixel_values=torch.randn(3, 3, 56, 56))
    apart, together = (
        random_pvc(tiny_pvc_config(frame_labels=labels)).visual_blocks(video) for labels in (True, False)
    )
    assert [len(block) for block in apart] == [4, 4, 4] and [len(block) for block in together] == [12]
    assert torch.equal(torch.cat(apart), together[0])


def test_a_video_whose_frames_are_repeated_is_not_encoded_piece_by_piece():
    with pytest.raises(ConfigError, match="video_repeat_time is 2"):
        random_pvc(tiny_pvc_config(video_repeat_time=2)).encoder(4)
