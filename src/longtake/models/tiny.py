"""Tiny models: one of random numbers for demos and tests, and the shape and tokenizer of one to be trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from longtake.models.configuration import VideoChatFlashConfig
from longtake.models.loaded import LoadedModel
from longtake.models.videochat_flash import VideoChatFlashForConditionalGeneration

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MOST_WORDS = 2000


def tiny_config(**overrides: object) -> VideoChatFlashConfig:
    """Return the shape of the tiny model: a 96-pixel UMT-like tower of width 64 and a 4-layer language model.

    36 patches a frame, 144 a clip, merged to 64: the merging really merges.
    """
    values: dict[str, object] = {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_theta": 1_000_000.0,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": False,
        "tokenizer_model_max_length": 32768,
        "mm_hidden_size": 64,
        "bos_token_id": 256,
        "pad_token_id": 256,
        "eos_token_id": 258,
        "llm_compress_layer_list": [1, 2, 3],
        "vision": {"kind": "umt", "image_size": 96, "patch_size": 16, "width": 64, "depth": 3, "heads": 2},
    }
    return VideoChatFlashConfig(**(values | overrides))  # pyright: ignore[reportArgumentType]


def build_random(config: VideoChatFlashConfig | None = None, seed: int = 0) -> VideoChatFlashForConditionalGeneration:
    """Build a model of random weights that depend on the seed alone; every tensor has non-zero values.

    The global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        model = VideoChatFlashForConditionalGeneration(tiny_config() if config is None else config)
    fill_random(model, seed)
    return model.eval()


def fill_random(model: torch.nn.Module, seed: int) -> None:
    """Give every parameter random values that depend on the seed alone; norms lie around one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator) * (0.5 / max(value.shape[-1], 16) ** 0.5)
            is_norm = "norm" in name and name.endswith("weight")
            value.copy_(1 + noise if is_norm else noise * 2)


def small_config(tokenizer: PreTrainedTokenizerBase) -> VideoChatFlashConfig:
    """Return the shape of `longtake-tiny`: 64-pixel frames, a convolutional stem, one token a frame, 2.7 M weights."""
    return tiny_config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_attention_heads=6,
        num_key_value_heads=6,
        # So long a base leaves most pairs of a head unturned over thousands of frames: what is there is found by what
        # it is, not by where.
        rope_theta=1e12,
        tie_word_embeddings=True,
        mm_hidden_size=128,
        bos_token_id=tokenizer.pad_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        vision={
            "kind": "umt",
            "image_size": 64,
            "patch_size": 8,
            "width": 128,
            "depth": 3,
            "heads": 4,
            "stem": "convolution",
            "pretrained_grid": 8,
        },
        methods={"compress": {"name": "tome", "tokens_per_frame": 1}},
    )


def word_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Build a tokenizer that has a token for every word of these texts, and one for every byte of any other."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=MOST_WORDS,
        min_frequency=1,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # A word is another token at the beginning of a line than behind a blank.
    tokenizer.train_from_iterator([text for line in texts for text in (line, f" {line}")], trainer)
    return _fast(tokenizer)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer with one token a byte: newline is 198 as in Qwen's vocabulary, control tokens from 256 on.

    Source: Qwen orders its byte tokens as GPT-2 does: printable bytes first, the others after them.
    """
    # Printable bytes stand for themselves; each other byte for a letter from 256 on, in ascending order: sorted by
    # letter, the alphabet is therefore the vocabulary.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL_TOKENS])
    return _fast(tokenizer)


def _fast(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={"turn_start_token": "<|im_start|>"},
        clean_up_tokenization_spaces=False,
        model_max_length=32768,
    )


def bundled_tiny() -> Path:
    """Return the folder of `longtake-tiny`, the trained checkpoint that the package carries: docs/tiny.md."""
    return Path(__file__).with_name("longtake_tiny")


def tiny_model(seed: int = 0) -> LoadedModel:
    """Build a tiny untrained model with its tokenizer, in the form in which `longtake.load` returns a real one."""
    config = tiny_config()
    text = json.dumps([config.to_dict(), "random weights", seed], sort_keys=True, default=str)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()
    return LoadedModel(build_random(config, seed), byte_tokenizer(), config, fingerprint)
