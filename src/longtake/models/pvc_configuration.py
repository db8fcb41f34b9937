"""The configuration of PVC: the released file's keys, and fields of our own for what the paper leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, no_type_check

from transformers import LlamaConfig, PreTrainedConfig

from longtake.core.errors import ConfigError
from longtake.nn.compressor import CompressorConfig
from longtake.nn.vision.internvit import InternVitConfig

PVC_MODEL_TYPE = "pvc_internvl"
TEXT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
)
_TEXT_OPTIONAL = ("hidden_act", "pad_token_id", "bos_token_id", "eos_token_id", "initializer_range")
TILE_ORDERS = ("tile_major", "copy_major")


def llama_config(values: Mapping[str, Any]) -> LlamaConfig:
    """Build the Llama configuration that computes what InternLM2 does; one of a Llama is taken as it is.

    Raises: ConfigError if a field that says the model's shape is missing.
    Source: InternLM2 `bias` is that of the attention alone; its rope_scaling is transformers' rope_parameters.
    """
    if values.get("model_type") == LlamaConfig.model_type:
        return LlamaConfig(**values)
    missing = [name for name in (*TEXT_FIELDS, "bias", "rope_theta") if name not in values]
    if missing:
        raise ConfigError(f"llm_config lacks {', '.join(missing)}; expected InternLM2's fields; correct config.json")
    scaling = dict(values.get("rope_scaling") or {})
    kind = scaling.pop("type", scaling.pop("rope_type", "default"))
    fields = {name: values[name] for name in (*TEXT_FIELDS, *_TEXT_OPTIONAL) if name in values}
    return LlamaConfig(
        **fields,
        attention_bias=bool(values["bias"]),
        tie_word_embeddings=bool(values.get("tie_word_embeddings", False)),
        rope_parameters=scaling | {"rope_type": kind, "rope_theta": values["rope_theta"]},
    )


# transformers gives configurations an __init__ that takes any keyword, which run-time checkers of the dataclass's
# declared signature would refuse.
@no_type_check
class PvcVisionConfig(PreTrainedConfig):
    """InternViT's keys in a released config.json; the defaults are those of the 300M tower."""

    model_type = "intern_vit_temporal"

    hidden_size: int = 1024
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    image_size: int = 448
    patch_size: int = 14
    qkv_bias: bool = True
    qk_normalization: bool = False
    norm_type: str = "layer_norm"
    layer_norm_eps: float = 1e-6
    hidden_act: str = "gelu"


@no_type_check
class PvcConfig(PreTrainedConfig):
    """The released file's keys, with the defaults of the released class, then fields of our own.

    Inferred, none of it said by any public file [I]: image_repeat_time is 4 and video_repeat_time 1 in the released
    file; tile_order, how the copies and tiles of an image follow each other in the prompt; temporal_heads,
    temporal_norm_eps, gate, cls_in_time (`InternVitConfig`); compressor_norm_eps (`CompressorConfig`); time_scale.
    temporal_layers: none means that the tensors' names say it, where a file is loaded. time_scale: none means unknown;
    nothing runs then. conditioning, conditioning_rank: of the compressor. temporal_window: how many frames back a
    frame of a streamed video sees; none: all. frame_labels: whether each frame of a video has a place of its own in
    the prompt, behind its number, as released; else a video is one block, as reducers and selectors need it. context
    tokens: `img_context_token_id`. methods: as in VideoChatFlashConfig.

    Source: PVCInternVLConfig's signature.
    """

    model_type = PVC_MODEL_TYPE
    sub_configs = {"vision_config": PvcVisionConfig, "llm_config": LlamaConfig}  # noqa: RUF012  # pyright: ignore

    vision_config: Any = None
    llm_config: Any = None
    use_temporal: bool = False
    pad2square: bool = False
    select_layer: int = -1
    force_image_size: int | None = None
    downsample_ratio: float = 0.5
    template: str | None = None
    dynamic_image_size: bool = False
    use_thumbnail: bool = False
    ps_version: str = "v1"
    min_dynamic_patch: int = 1
    max_dynamic_patch: int = 6
    image_repeat_time: int = 1
    video_repeat_time: int = 1
    tile_repeat_way: str | None = None
    mlp_add_ops: str | None = None
    tie_word_embeddings: bool = False

    temporal_layers: list | tuple | None = None
    share_time_mlp: bool = False
    time_scale: float | None = None
    temporal_heads: int | None = None
    temporal_norm_eps: float = 1e-6
    gate: str = "vector"
    cls_in_time: bool = True
    conditioning: str = "full"
    conditioning_rank: int = 64
    compressor_norm_eps: float = 1e-5
    tile_order: str = "tile_major"
    temporal_window: int | None = 96
    frame_labels: bool = True
    img_context_token_id: int = 92546
    tokenizer_model_max_length: int | None = None
    methods: dict | None = None

    def __post_init__(self, **kwargs):
        """Build the parts' configurations; keys that older versions of transformers left in them are dropped."""
        if not isinstance(self.vision_config, PreTrainedConfig):
            known = PvcVisionConfig().to_dict()
            values = {key: value for key, value in (self.vision_config or {}).items() if key in known}
            values.pop("model_type", None)
            self.vision_config = PvcVisionConfig(**values)
        if not isinstance(self.llm_config, PreTrainedConfig):
            self.llm_config = llama_config(self.llm_config) if self.llm_config else LlamaConfig()
        super().__post_init__(**kwargs)

    def get_text_config(self, decoder: Any = None, encoder: Any = None) -> LlamaConfig:
        """Return the language model's configuration, whichever part is asked for."""
        return self.llm_config

    @property
    def mm_local_num_frames(self) -> int:
        """Return how many frames are encoded as one clip: each frame becomes tokens of its own."""
        return 1

    @property
    def shuffle_factor(self) -> int:
        """Return how many patches high and wide a token is."""
        return round(1 / self.downsample_ratio)

    @property
    def tokens_per_frame(self) -> int:
        """Return how many tokens one frame, or one copy of a tile, becomes."""
        side = self.vision_config.image_size // self.vision_config.patch_size // self.shuffle_factor
        return side * side

    @property
    def tower_config(self) -> InternVitConfig:
        """Build the vision tower's configuration.

        Raises: ConfigError if the temporal layers or their time scale are not known.
        """
        vision, layers = self.vision_config, self.temporal_layers
        if layers is None and self.use_temporal:
            raise ConfigError(
                "the configuration says use_temporal but not which layers are temporal; expected temporal_layers; set "
                "it (the preset pvc_8b has the last eight, fitted from file sizes)"
            )
        return InternVitConfig(
            image_size=vision.image_size,
            patch_size=vision.patch_size,
            width=vision.hidden_size,
            depth=vision.num_hidden_layers,
            num_heads=vision.num_attention_heads,
            mlp_hidden=vision.intermediate_size,
            qkv_bias=vision.qkv_bias,
            qk_norm=vision.qk_normalization,
            norm=vision.norm_type,
            norm_eps=vision.layer_norm_eps,
            temporal_layers=tuple(layers or ()),
            share_time_mlp=self.share_time_mlp,
            time_scale=self.known_time_scale,
            temporal_heads=self.temporal_heads,
            temporal_norm_eps=self.temporal_norm_eps,
            gate=self.gate,
            cls_in_time=self.cls_in_time,
        )

    @property
    def known_time_scale(self) -> float:
        """Return the time scale.

        Raises: ConfigError if it is not known where it matters.
        """
        if self.time_scale is None and (self.temporal_layers or self.conditioning != "none"):
            raise ConfigError(
                "the configuration does not say its time_scale, what a relative time of one stands for; expected a "
                "number; set time_scale in config.json (1.0 is the literal reading of the paper), or load with the "
                "preset pvc_8b, which assumes it"
            )
        return 1.0 if self.time_scale is None else float(self.time_scale)

    @property
    def compressor_config(self) -> CompressorConfig:
        """Build the compressor's configuration."""
        return CompressorConfig(
            factor=self.shuffle_factor,
            conditioning=self.conditioning,
            rank=self.conditioning_rank,
            norm_eps=self.compressor_norm_eps,
            version=self.ps_version,
        )

    @property
    def context_length(self) -> int:
        """Return how many tokens, visual ones included, a prompt may have."""
        return self.tokenizer_model_max_length or self.llm_config.max_position_embeddings

    def check_supported(self) -> None:
        """Refuse settings that no public code explains.

        Raises: ConfigError naming the field.
        """
        expected: dict[str, tuple[object, ...]] = {
            "pad2square": (False,),
            "select_layer": (-1,),
            "force_image_size": (None, self.vision_config.image_size),
            "template": (None, "internlm2-chat"),
            "tile_order": TILE_ORDERS,
        }
        for name, values in expected.items():
            if getattr(self, name) not in values:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}; expected {' or '.join(map(repr, values))}; correct the "
                    "configuration, or take the preset pvc_8b"
                )
        if min(self.image_repeat_time, self.video_repeat_time) < 1:
            raise ConfigError(
                f"image_repeat_time {self.image_repeat_time} and video_repeat_time {self.video_repeat_time} arrived; "
                "expected at least 1; correct the configuration"
            )
