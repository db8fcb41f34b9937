"""Importing this module makes our classes known to transformers' Auto classes; no remote code is ever run.

>>> import longtake.auto
>>> from transformers import AutoModelForImageTextToText
>>> model = AutoModelForImageTextToText.from_pretrained("folder-or-repository")  # doctest: +SKIP
"""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
)

from longtake.models.configuration import VideoChatFlashConfig
from longtake.models.processor import VideoChatFlashProcessor
from longtake.models.pvc import PvcForConditionalGeneration
from longtake.models.pvc_configuration import PVC_MODEL_TYPE, PvcConfig
from longtake.models.pvc_names import register_pvc_names
from longtake.models.released_names import register_renamings
from longtake.models.videochat_flash import VideoChatFlashForConditionalGeneration


def register() -> None:
    """Register the classes; may be called again.

    Released configurations name `AutoModel` as their entry, so every Auto class that people try leads to the model.
    """
    AutoConfig.register(VideoChatFlashConfig.model_type, VideoChatFlashConfig, exist_ok=True)
    AutoConfig.register(PVC_MODEL_TYPE, PvcConfig, exist_ok=True)
    for auto in (AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText):
        auto.register(VideoChatFlashConfig, VideoChatFlashForConditionalGeneration, exist_ok=True)
        auto.register(PvcConfig, PvcForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(VideoChatFlashConfig, VideoChatFlashProcessor, exist_ok=True)
    register_renamings(VideoChatFlashForConditionalGeneration.__name__, VideoChatFlashConfig.model_type)
    register_pvc_names(PvcForConditionalGeneration.__name__, PVC_MODEL_TYPE)


register()
