"""InternViT with PVC's temporal layers: images as static videos, videos as they are, in one forward pass."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import InternVLVisionConfig
from transformers.models.internvl.modeling_internvl import InternVLVisionEmbeddings, InternVLVisionLayer

from longtake.core.config import StrictConfig
from longtake.core.errors import ConfigError
from longtake.core.protocols import Grid
from longtake.nn.vision.progressive import TemporalBranch, relative_times, time_code


@dataclasses.dataclass(frozen=True, kw_only=True)
class InternVitConfig(StrictConfig):
    """Shape of an InternViT tower; without temporal layers it is the static one.

    temporal_layers: indices from 0 of the layers with a temporal branch; the last eight are fitted from file sizes
    [F]. time_scale: what a relative time of one stands for [I].
    """

    image_size: int = 448
    patch_size: int = 14
    width: int = 1024
    depth: int = 24
    num_heads: int = 16
    mlp_hidden: int = 4096
    qkv_bias: bool = True
    qk_norm: bool = False
    norm: str = "layer_norm"
    norm_eps: float = 1e-6
    temporal_layers: tuple[int, ...] = tuple(range(16, 24))
    time_scale: float = 1.0

    def __post_init__(self) -> None:
        if any(not 0 <= layer < self.depth for layer in self.temporal_layers):
            raise ConfigError(f"temporal_layers {self.temporal_layers} do not lie in 0..{self.depth - 1}; change them")

    def to_transformers(self) -> InternVLVisionConfig:
        """Return the configuration of transformers' own layers, without the final norm that InternViT lacks."""
        shape = InternVLVisionConfig(
            hidden_size=self.width,
            num_hidden_layers=self.depth,
            num_attention_heads=self.num_heads,
            intermediate_size=self.mlp_hidden,
            image_size=[self.image_size, self.image_size],
            patch_size=[self.patch_size, self.patch_size],
            attention_bias=self.qkv_bias,
            use_qk_norm=self.qk_norm,
            norm_type=self.norm,
            layer_norm_eps=self.norm_eps,
            use_absolute_position_embeddings=True,
            use_mean_pooling=True,
        )
        shape._attn_implementation = "sdpa"
        return shape


@dataclasses.dataclass(eq=False)
class TemporalStream:
    """The temporal layers' memory of a video under way.

    nominal_frames: the T by which times are relative, fixed beforehand. window: how many frames back a frame sees;
    memory is flat in the length of the video. next_frame: index of the next frame to come.
    """

    nominal_frames: int
    window: int
    next_frame: int = 0
    past: dict[int, tuple[Tensor, Tensor]] = dataclasses.field(default_factory=dict)


class ProgressiveTower(nn.Module):
    """Turn frames and image tiles into patch features in which each frame adds to the earlier ones.

    Parts carry transformers' InternVL names; `temporal.N` holds the branch of layer N.
    """

    def __init__(self, config: InternVitConfig) -> None:
        super().__init__()
        self.config = config
        shape = config.to_transformers()
        self.embeddings = InternVLVisionEmbeddings(shape)
        self.layer = nn.ModuleList(InternVLVisionLayer(shape) for _ in range(config.depth))
        self.temporal = nn.ModuleDict(
            {str(n): TemporalBranch(config.width, config.num_heads, config.norm_eps) for n in config.temporal_layers}
        )

    @property
    def width(self) -> int:
        """Width of the features."""
        return self.config.width

    def grid(self, num_frames: int) -> Grid:
        """Return the patch grid of `num_frames` frames."""
        side = self.config.image_size // self.config.patch_size
        return Grid(num_frames=num_frames, rows=side, columns=side, num_heads=self.config.num_heads)

    def _layers(self) -> list[Any]:
        return list(self.layer)

    def _branch(self, index: int) -> Any:
        return self.temporal[str(index)]

    def forward(
        self, pixel_values: Float[Tensor, "E 3 H W"], sequence_lengths: list[int], repeats: int = 1
    ) -> Float[Tensor, "T L D"]:
        """Encode E entries, each shown `repeats` times in place, grouped into temporal sequences.

        sequence_lengths: frames of each sequence after repetition; they add up to T = E * repeats. Copies share all
        work before the first temporal layer, and in it everything that does not depend on time. The output holds the
        CLS token at row 0 of each frame; there is no final norm.

        Raises: ConfigError if the lengths do not add up.
        Source: PVC figure 2 and sections on progressive encoding.
        """
        if sum(sequence_lengths) != pixel_values.shape[0] * repeats:
            raise ConfigError(
                f"sequences of {sequence_lengths} frames arrived for {pixel_values.shape[0]} entries shown {repeats} "
                f"times; expected them to add up to {pixel_values.shape[0] * repeats}; regroup them"
            )
        times = torch.cat([relative_times(length, self.config.time_scale) for length in sequence_lengths])
        code = time_code(times.to(pixel_values.device))
        x = self.embeddings(pixel_values)
        for index, layer in enumerate(self._layers()):
            x = x + layer.lambda_1 * layer.attention(layer.layernorm_before(x))[0]
            if str(index) in self.temporal:
                branch = self._branch(index)
                conditioned = branch.adaln(x, branch.time(code))
                attended, _ = branch.attn(conditioned, sequence_lengths)
                x = x.repeat_interleave(len(times) // len(x), 0) + branch.gate * attended
            x = x + layer.lambda_2 * layer.mlp(layer.layernorm_after(x))
        return x.repeat_interleave(len(times) // len(x), 0)

    def stream(self, pixel_values: Float[Tensor, "T 3 H W"], state: TemporalStream) -> Float[Tensor, "T L D"]:
        """Encode the next frames of a video, with what the temporal layers remember of the earlier ones.

        Equal to encoding the whole video at once while the window covers it, however the video is cut.
        """
        count = pixel_values.shape[0]
        times = relative_times(count, self.config.time_scale, state.next_frame, state.nominal_frames)
        code = time_code(times.to(pixel_values.device))
        x = self.embeddings(pixel_values)
        for index, layer in enumerate(self._layers()):
            x = x + layer.lambda_1 * layer.attention(layer.layernorm_before(x))[0]
            if str(index) in self.temporal:
                branch = self._branch(index)
                conditioned = branch.adaln(x, branch.time(code))
                attended, kept = branch.attn(conditioned, [count], state.past.get(index), state.window)
                keep = state.window - 1
                state.past[index] = tuple(part[:, :, max(0, part.shape[2] - keep) :].clone() for part in kept)
                x = x + branch.gate * attended
            x = x + layer.lambda_2 * layer.mlp(layer.layernorm_after(x))
        state.next_frame += count
        return x
