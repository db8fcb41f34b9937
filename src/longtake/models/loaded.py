"""A model with all that belongs to it, as `longtake.load` returns it."""

from __future__ import annotations

import dataclasses

import torch
from transformers import PreTrainedTokenizerBase

from longtake.models.configuration import VideoChatFlashConfig
from longtake.models.evidence_threshold import EvidenceThreshold
from longtake.models.pvc import PvcForConditionalGeneration
from longtake.models.pvc_configuration import PvcConfig
from longtake.models.videochat_flash import VideoChatFlashForConditionalGeneration

AnyConfig = VideoChatFlashConfig | PvcConfig
AnyModel = VideoChatFlashForConditionalGeneration | PvcForConditionalGeneration


def model_class(config: AnyConfig) -> type[VideoChatFlashForConditionalGeneration] | type[PvcForConditionalGeneration]:
    """Return the class of the model that a configuration describes."""
    return PvcForConditionalGeneration if isinstance(config, PvcConfig) else VideoChatFlashForConditionalGeneration


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model, its tokenizer and its configuration.

    fingerprint: SHA-256 over the configuration, the identity of the weights and the dtype they were loaded in; two
    models with the same fingerprint make the same visual tokens. evidence: below which score an answer has none;
    nothing is claimed without it.
    """

    model: AnyModel
    tokenizer: PreTrainedTokenizerBase
    config: AnyConfig
    fingerprint: str
    evidence: EvidenceThreshold | None = None

    @property
    def device(self) -> torch.device:
        """Device of the model's first parameter."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the model."""
        return self.model.dtype
