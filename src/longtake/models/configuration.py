"""The configuration of VideoChat-Flash: the flat keys of the released files, with a view of each part."""

from __future__ import annotations

from typing import Any, no_type_check

from transformers import Qwen2Config

from longtake.core.config import nearest_name
from longtake.core.errors import ConfigError
from longtake.nn.vision.internvideo2 import InternVideo2Config
from longtake.nn.vision.umt import UmtConfig

MODEL_TYPE = "videochat_flash_qwen"
PROJECTOR_TYPE = "tome16_mlp_hd64"
DEFAULT_CONTEXT = 32768
TEXT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "use_cache",
    "tie_word_embeddings",
    "rope_parameters",
    "attention_dropout",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "dtype",
)
TOWERS: dict[str, type[UmtConfig] | type[InternVideo2Config]] = {"umt": UmtConfig, "internvideo2": InternVideo2Config}
_VISION_RENAMED = {"heads": "num_heads", "ckpt_grid": "pretrained_grid", "ckpt_frames": "pretrained_frames"}


# transformers gives configurations an __init__ that takes any keyword, which run-time checkers of the dataclass's
# declared signature would refuse.
@no_type_check
class VideoChatFlashConfig(Qwen2Config):
    """Flat released keys: the language model's own, then what the vision tower, connector and reducer need.

    Unknown keys of released files are kept and have no effect, as in any Hugging Face configuration. `vision` holds
    shapes that no released name stands for (tiny models): kind, image_size, patch_size, width, depth, heads,
    frames_per_clip, pretrained_grid, pretrained_frames; mlp_ratio or mlp_hidden. `methods` says which methods the
    weights were tuned for, by kind (`compress`, `reduce`, `select`): a `name` and the method's fields.

    Raises: ConfigError on a tower, connector or vision key that is not known.
    Source: config.json of the released repositories; the tower is chosen by substring, in this order.
    """

    model_type = MODEL_TYPE

    mm_vision_tower: str | None = None
    mm_vision_select_layer: int = -2
    mm_hidden_size: int | None = None
    mm_projector_type: str = PROJECTOR_TYPE
    mm_local_num_frames: int = 4
    vision_encode_type: str = "video_image"
    mm_patch_merge_type: str = "spatial_nopad"
    mm_newline_position: str = "nothing"
    image_aspect_ratio: str | None = "anyres_nopad"
    frame_aspect_ratio: str | None = "square"
    image_grid_pinpoints: Any = None
    tokenizer_model_max_length: int | None = None
    tokenizer_padding_side: str = "right"
    mm_llm_compress: bool = False
    llm_compress_type: str = "attention"
    llm_compress_layer_list: list | tuple = (8, 16, 24)
    llm_image_token_ratio_list: list | tuple = (1.0, 0.5, 0.25, 0.125)
    vision: dict | None = None
    methods: dict | None = None

    @property
    def text_config(self) -> Qwen2Config:
        """Build the language model's own configuration from the flat fields; no sliding window is ever in use."""
        values = {name: getattr(self, name) for name in TEXT_FIELDS}
        text = Qwen2Config(**values, use_sliding_window=False, sliding_window=None)
        text._attn_implementation = self._attn_implementation
        return text

    def get_text_config(self, decoder: Any = None, encoder: Any = None) -> Qwen2Config:
        """Return the view of the language model, whichever part is asked for."""
        return self.text_config

    @property
    def tower_kind(self) -> str:
        """Name the vision tower: `umt` or `internvideo2`."""
        if self.vision is not None and "kind" in self.vision:
            kind = str(self.vision["kind"])
            if kind not in TOWERS:
                raise ConfigError(f"vision kind is {kind!r}; expected one of these; {nearest_name(kind, list(TOWERS))}")
            return kind
        name = self.mm_vision_tower or ""
        for part, kind in (("internvideo2", "internvideo2"), ("umt-hd", "umt"), ("umt", "umt")):
            if part in name.lower():
                return kind
        raise ConfigError(
            f"mm_vision_tower is {self.mm_vision_tower!r}; expected a name that contains internvideo2, umt-hd or umt; "
            "set it, or pass the shapes of the tower in `vision`"
        )

    @property
    def vision_config(self) -> UmtConfig | InternVideo2Config:
        """Build the vision tower's configuration."""
        kind = self.tower_kind
        values: dict[str, object] = {
            "select_layer": self.mm_vision_select_layer,
            "frames_per_clip": self.mm_local_num_frames,
        }
        if kind == "umt" and "umt-hd" in (self.mm_vision_tower or "").lower():
            values["image_size"] = 448
        for key, value in (self.vision or {}).items():
            if key not in ("kind", "blocks_run"):
                values[_VISION_RENAMED.get(str(key), str(key))] = value
        if kind == "internvideo2" and "width" in values:
            values.setdefault("mlp_hidden", int(int(str(values["width"])) * 48 / 11))
        return TOWERS[kind].from_dict(values)

    @property
    def vision_width(self) -> int:
        """Return the width of the vision tower's output, the input of the projector."""
        width = self.vision_config.width
        if self.mm_hidden_size is not None and self.mm_hidden_size != width:
            raise ConfigError(
                f"mm_hidden_size is {self.mm_hidden_size} and the vision tower is {width} wide; expected the same; "
                "correct config.json"
            )
        return width

    @property
    def context_length(self) -> int:
        """Return how many tokens, visual ones included, a prompt may have."""
        if self.tokenizer_model_max_length is not None:
            return self.tokenizer_model_max_length
        return min(self.max_position_embeddings, DEFAULT_CONTEXT)

    def check_supported(self) -> None:
        """Refuse settings that no released checkpoint uses.

        Raises: ConfigError naming the field.
        """
        expected = {
            "mm_projector_type": PROJECTOR_TYPE,
            "vision_encode_type": "video_image",
            "mm_newline_position": "nothing",
            "tokenizer_padding_side": "right",
        }
        for name, value in expected.items():
            if getattr(self, name) != value:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}; expected {value!r} as in every released checkpoint; "
                    "this model is of another kind"
                )
        if not self.mm_patch_merge_type.startswith("spatial"):
            raise ConfigError(
                f"mm_patch_merge_type is {self.mm_patch_merge_type!r}; expected 'spatial_nopad'; correct config.json"
            )
