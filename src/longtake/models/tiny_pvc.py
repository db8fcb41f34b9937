"""A tiny PVC: its shape, and one of random numbers for demos and tests."""

from __future__ import annotations

import hashlib
import json

import torch
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from longtake.models.loaded import LoadedModel
from longtake.models.pvc import PvcForConditionalGeneration
from longtake.models.pvc_configuration import PvcConfig
from longtake.models.pvc_prompt import CONTROL_TEXTS, IMG_CONTEXT
from longtake.models.tiny import byte_tokenizer, fill_random


def tiny_pvc_config(**overrides: object) -> PvcConfig:
    """Return the shape of the tiny model: 56-pixel frames in 16 patches, one token a frame from each 2 x 2 of them.

    Four tokens a frame, four copies of an image's tiles; the last two of four vision layers look back in time.
    """
    values: dict[str, object] = {
        "vision_config": {
            "hidden_size": 32,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "image_size": 56,
            "patch_size": 14,
        },
        "llm_config": {
            "vocab_size": 384,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "bias": False,
            "rope_theta": 1_000_000.0,
            "rope_scaling": {"type": "dynamic", "factor": 2.0},
            "bos_token_id": 256,
            "pad_token_id": 256,
            "eos_token_id": 258,
        },
        "use_temporal": True,
        "downsample_ratio": 0.5,
        "ps_version": "v2",
        "dynamic_image_size": True,
        "use_thumbnail": True,
        "max_dynamic_patch": 6,
        "image_repeat_time": 4,
        "temporal_layers": (2, 3),
        "time_scale": 1.0,
        "img_context_token_id": pvc_byte_tokenizer().convert_tokens_to_ids(IMG_CONTEXT),
    }
    return PvcConfig(**(values | overrides))  # pyright: ignore[reportArgumentType]


def pvc_byte_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer with one token a byte and PVC's control tokens."""
    tokenizer, added = byte_tokenizer(), [AddedToken(text, special=True, normalized=False) for text in CONTROL_TEXTS]
    tokenizer.add_tokens(added)  # pyright: ignore[reportArgumentType]
    return tokenizer


def random_pvc(config: PvcConfig | None = None, seed: int = 0) -> PvcForConditionalGeneration:
    """Build a model of random weights that depend on the seed alone; every tensor has non-zero values."""
    with torch.random.fork_rng(devices=[]):
        model = PvcForConditionalGeneration(tiny_pvc_config() if config is None else config)
    fill_random(model, seed)
    return model.eval()


def tiny_pvc(seed: int = 0) -> LoadedModel:
    """Build a tiny untrained model with its tokenizer, in the form in which `longtake.load` returns a real one."""
    config = tiny_pvc_config()
    text = json.dumps([config.to_dict(), "random weights", seed], sort_keys=True, default=str)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()
    return LoadedModel(random_pvc(config, seed), pvc_byte_tokenizer(), config, fingerprint)
