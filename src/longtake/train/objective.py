"""The loss of some samples, as a module, so that wrappers of torch and accelerate see one forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from longtake.core.chat import IGNORE_LABEL
from longtake.data.samples import TrainingSample
from longtake.models.splice import Spliced, Visual
from longtake.models.videochat_flash import VideoChatFlashForConditionalGeneration
from longtake.train.packed_walk import PackedRow, packed_prefill


class Objective(nn.Module):
    """Add up the cross entropy of each labelled next token over samples that are packed into one row.

    A sum and not a mean: divided by the labelled tokens of a whole step it does not depend on how the step is cut
    into rows, accumulation steps and processes. checkpointing: trade time for the memory of activations.
    no_grad_frames: videos of so many frames pass the tower and the connector without a gradient (0: never).

    Source: the released code averages the means of single samples; XComp states the mean over tokens, as here.
    """

    def __init__(
        self, model: VideoChatFlashForConditionalGeneration, *, checkpointing: bool = False, no_grad_frames: int = 0
    ) -> None:
        super().__init__()
        self.model = model
        self.checkpointing = checkpointing
        self.no_grad_frames = no_grad_frames

    def forward(self, samples: Sequence[TrainingSample]) -> Float[Tensor, ""]:
        """Return the sum over the labelled tokens; for no sample at all 0, with a gradient of 0."""
        idle: list[Tensor] = []
        if not any(sample.pixels is not None and not self._is_long(sample) for sample in samples):
            idle += [*self.model.vision.parameters(), *self.model.projector.parameters()]
        if not samples:
            idle += [*self.model.language.parameters(), *self.model.lm_head.parameters()]
        # Processes that share gradients have to have one for the same weights.
        nothing = sum((value.flatten()[0] * 0 for value in idle if value.requires_grad), torch.zeros(()))
        if not samples:
            return nothing
        total, _ = self.of_row(PackedRow.of([self._spliced(sample) for sample in samples]))
        return total + nothing.to(total.device)

    def of_row(self, row: PackedRow) -> tuple[Float[Tensor, ""], int]:
        """Return the sum over a row's labelled tokens, and how many they are."""
        model = self.model
        read = packed_prefill(model.language, row, model.reducer, checkpointing=self.checkpointing)
        targets = read.targets().to(read.hidden.device)
        where = targets != IGNORE_LABEL
        logits = model.lm_head(read.hidden[where])  # no logits where nothing is learned
        return F.cross_entropy(logits.float(), targets[where], reduction="sum"), int(where.sum())

    def _spliced(self, sample: TrainingSample) -> Spliced:
        device = self.model.input_device
        ids, labels = sample.ids.to(device).unsqueeze(0), sample.labels.to(device).unsqueeze(0)
        return self.model.splice_inputs(ids, self._tokens(sample), labels=labels)

    def _is_long(self, sample: TrainingSample) -> bool:
        count = 0 if sample.pixels is None or sample.modality == "image" else len(sample.pixels)
        return 0 < self.no_grad_frames <= count

    def _tokens(self, sample: TrainingSample) -> list[Tensor]:
        if sample.pixels is None:
            return []
        visual = Visual(pixel_values=sample.pixels, modality=sample.modality, tile_grid=sample.tile_grid)
        if self._is_long(sample):
            with torch.no_grad():
                return [self.model.visual_tokens(visual)]
        if self.checkpointing and torch.is_grad_enabled():
            return [checkpoint(self.model.visual_tokens, visual, use_reentrant=False)]
        return [self.model.visual_tokens(visual)]
