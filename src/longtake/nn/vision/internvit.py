"""InternViT with PVC's temporal layers: images as static videos, videos as they are, in one forward pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformers import InternVLVisionConfig
from transformers.models.internvl.modeling_internvl import InternVLVisionEmbeddings, InternVLVisionLayer

from longtake.core.config import StrictConfig
from longtake.core.errors import ConfigError
from longtake.core.protocols import Grid
from longtake.nn.vision.progressive import TemporalBranch, TimeMlp, relative_times, spread, time_code


@dataclasses.dataclass(frozen=True, kw_only=True)
class InternVitConfig(StrictConfig):
    """Shape of an InternViT tower; without temporal layers it is the static one.

    temporal_layers: indices from 0 of the layers with a temporal branch; the last eight are fitted from file sizes
    [F]. share_time_mlp: one time embedding for all of them [F: not with eight]. time_scale: what a relative time of
    one stands for [I]. temporal_heads: heads of the attention over time; none: as many as in space [I].
    temporal_norm_eps: of the time-conditioned norm [I]. gate: one number a channel (`vector`) or one (`scalar`) [I].
    cls_in_time: whether the CLS token looks back in time like a patch [I].
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
    share_time_mlp: bool = False
    time_scale: float = 1.0
    temporal_heads: int | None = None
    temporal_norm_eps: float = 1e-6
    gate: str = "vector"
    cls_in_time: bool = True

    def __post_init__(self) -> None:
        if any(not 0 <= layer < self.depth for layer in self.temporal_layers):
            raise ConfigError(f"temporal_layers {self.temporal_layers} do not lie in 0..{self.depth - 1}; change them")
        if self.gate not in ("vector", "scalar"):
            raise ConfigError(f"gate is {self.gate!r}; expected 'vector' or 'scalar'; choose one")

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

    nominal_frames: the T by which times are relative, fixed beforehand. window: how many frames back a frame sees,
    itself included; none: all of them. With a window, memory is flat in the length of the video. next_frame: index of
    the next frame to come.

    Raises: ConfigError if T is not known, or the window holds no frame.
    """

    nominal_frames: int | None
    window: int | None = None
    next_frame: int = 0
    past: dict[int, tuple[Tensor, Tensor]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.nominal_frames or self.nominal_frames < 1:
            raise ConfigError(
                f"the nominal length of a video under way is {self.nominal_frames}; expected the count of frames by "
                "which their times are relative, since the features depend on it; say how many frames there will be"
            )
        if self.window is not None and self.window < 1:
            raise ConfigError(f"the temporal window is {self.window}; expected at least 1 frame, or none; raise it")

    def times(self, count: int, time_scale: float) -> Float[Tensor, "T"]:
        """Return the times of the next `count` frames.

        Raises: ConfigError if that is more frames than were announced.
        """
        if self.nominal_frames is None or self.next_frame + count > self.nominal_frames:
            raise ConfigError(
                f"frames {self.next_frame} to {self.next_frame + count - 1} arrived for a video of "
                f"{self.nominal_frames}; expected no more, since times are relative to that; begin with a larger count"
            )
        return relative_times(count, time_scale, self.next_frame, self.nominal_frames)

    def remember(self, layer: int, keys_values: tuple[Tensor, Tensor]) -> None:
        """Keep what a layer's next frames can still see."""
        first = 0 if self.window is None else max(0, keys_values[0].shape[2] - self.window + 1)
        # Copies: a view would keep the whole chunk alive.
        self.past[layer] = (keys_values[0][:, :, first:].clone(), keys_values[1][:, :, first:].clone())


class ProgressiveLayer(InternVLVisionLayer):
    """A vision layer of transformers with a temporal branch, or none, between attention and feed-forward part."""

    def __init__(self, shape: InternVLVisionConfig, temporal: TemporalBranch | None) -> None:
        super().__init__(shape)
        self.temporal = temporal


class ProgressiveTower(nn.Module):
    """Turn frames and image tiles into patch features in which each frame adds to the earlier ones.

    Parts carry transformers' InternVL names; `layer.N.temporal` holds the branch of layer N.
    """

    def __init__(self, config: InternVitConfig) -> None:
        super().__init__()
        self.config = config
        shape = config.to_transformers()
        self.embeddings = InternVLVisionEmbeddings(shape)
        self.layer = nn.ModuleList(
            ProgressiveLayer(shape, self._branch() if index in config.temporal_layers else None)
            for index in range(config.depth)
        )
        self.time = TimeMlp(config.width) if config.share_time_mlp and config.temporal_layers else None

    def _branch(self) -> TemporalBranch:
        config = self.config
        return TemporalBranch(
            config.width,
            config.temporal_heads or config.num_heads,
            config.temporal_norm_eps,
            own_time=not config.share_time_mlp,
            gate_size=config.width if config.gate == "vector" else 1,
        )

    @property
    def width(self) -> int:
        """Width of the features."""
        return self.config.width

    @property
    def branches(self) -> dict[int, TemporalBranch]:
        """Temporal branches by the index of their layer."""
        return {index: layer.temporal for index, layer in enumerate(self._layers()) if layer.temporal is not None}

    def grid(self, num_frames: int) -> Grid:
        """Return the patch grid of `num_frames` frames."""
        side = self.config.image_size // self.config.patch_size
        return Grid(num_frames=num_frames, rows=side, columns=side, num_heads=self.config.num_heads)

    def _layers(self) -> list[Any]:
        return list(self.layer)

    def forward(
        self, pixel_values: Float[Tensor, "E 3 H W"], sequence_lengths: list[int], repeats: int | Sequence[int] = 1
    ) -> Float[Tensor, "T L D"]:
        """Encode E entries, each shown so many times in place, grouped into temporal sequences.

        repeats: for all entries or for each. sequence_lengths: frames of each sequence after repetition; they add up
        to T. Copies share all work before the first temporal layer, and in it everything that does not depend on
        time. The output holds the CLS token at row 0 of each frame; there is no final norm.

        Raises: ConfigError if the lengths do not add up.
        Source: PVC figure 2 and sections on progressive encoding.
        """
        times, entry = sequence_times(sequence_lengths, self.config.time_scale), _shown(pixel_values, repeats)
        if len(times) != len(entry):
            raise ConfigError(
                f"sequences of {sequence_lengths} frames arrived for {len(pixel_values)} entries shown {repeats} times "
                f"each; expected them to add up to {len(entry)}; regroup them"
            )
        return self._run(pixel_values, times, entry, sequence_lengths, None)

    def stream(self, pixel_values: Float[Tensor, "T 3 H W"], state: TemporalStream) -> Float[Tensor, "T L D"]:
        """Encode the next frames of a video, with what the temporal layers remember of the earlier ones.

        Equal to encoding the whole video at once while the window covers it, however the video is cut.
        """
        count = pixel_values.shape[0]
        times = state.times(count, self.config.time_scale)
        out = self._run(pixel_values, times, _shown(pixel_values, 1), [count], state)
        state.next_frame += count
        return out

    def _run(
        self,
        pixel_values: Tensor,
        times: Tensor,
        shown: Tensor,
        sequence_lengths: list[int],
        state: TemporalStream | None,
    ) -> Tensor:
        code = time_code(times.to(pixel_values.device))
        shared = None if self.time is None else self.time(code)
        entry = None if len(shown) == len(pixel_values) else shown
        x = self.embeddings(pixel_values)
        for index, layer in enumerate(self._layers()):
            x = x + layer.lambda_1 * layer.attention(layer.layernorm_before(x))[0]
            if layer.temporal is not None:
                time = layer.temporal.time(code) if shared is None else shared
                x = self._add_time(index, layer.temporal, x, time, entry, sequence_lengths, state)
                entry = None
            x = x + layer.lambda_2 * layer.mlp(layer.layernorm_after(x))
        return spread(x, entry)

    def _add_time(
        self,
        index: int,
        branch: TemporalBranch,
        x: Tensor,
        time: Tensor,
        entry: Tensor | None,
        sequence_lengths: list[int],
        state: TemporalStream | None,
    ) -> Tensor:
        first = 0 if self.config.cls_in_time else 1
        past, window = (None, None) if state is None else (state.past.get(index), state.window)
        moved, kept = branch(x[:, first:], time, sequence_lengths, entry, past, window)
        if state is not None:
            state.remember(index, kept)
        return moved if not first else torch.cat([spread(x[:, :first], entry), moved], dim=1)


def _shown(pixel_values: Tensor, repeats: int | Sequence[int]) -> Int64[Tensor, "T"]:
    """Return which entry each frame shows."""
    entries = torch.arange(len(pixel_values), device=pixel_values.device)
    if isinstance(repeats, int):
        return entries.repeat_interleave(repeats)
    if len(repeats) != len(entries):
        raise ConfigError(
            f"{len(repeats)} repeats arrived for {len(entries)} entries; expected one for each; pass as many, or one "
            "number for all"
        )
    return entries.repeat_interleave(torch.tensor(list(repeats), device=entries.device))


def sequence_times(sequence_lengths: list[int], time_scale: float) -> Float[Tensor, "T"]:
    """Return the time of every frame of some sequences, each relative to its own length."""
    return torch.cat([relative_times(length, time_scale) for length in sequence_lengths])
