"""Text and videos to model inputs, for people who work through transformers' AutoProcessor. Needs no torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, no_type_check

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, BatchFeature, PreTrainedTokenizerBase
from transformers.processing_utils import ProcessorMixin

from longtake.core.chat import PLACEHOLDER
from longtake.core.errors import PromptError
from longtake.models.configuration import VideoChatFlashConfig
from longtake.models.prompt import prompt_ids, video_prompt


@no_type_check
class VideoChatFlashProcessor(ProcessorMixin):
    """Turn prompts with `<image>` placeholders and decoded frames into `input_ids` and `pixel_values`.

    A video is uint8 [T, H, W, 3]; T must be a multiple of the clip length. Decoding and the choice of frames belong
    to `longtake.open_video` and `longtake.media.sampling`, which know presentation times.
    """

    valid_processor_kwargs = dict

    def __init__(self, tokenizer: PreTrainedTokenizerBase, image_size: int = 224, chat_template: Any = None) -> None:
        super().__init__(tokenizer, chat_template=chat_template)
        self.image_size = image_size

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> VideoChatFlashProcessor:
        """Load the tokenizer, and the frame size from the model's configuration: releases hold no processor file."""
        hub = {k: kwargs[k] for k in ("revision", "token", "cache_dir", "local_files_only") if k in kwargs}
        config = VideoChatFlashConfig.from_pretrained(pretrained_model_name_or_path, **hub)
        tokenizer = AutoTokenizer.from_pretrained(pretrained_model_name_or_path, config=config, **hub)
        return cls(tokenizer, image_size=config.vision_config.image_size)

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, text: str | Sequence[str] = "", videos: Sequence[np.ndarray] | np.ndarray | None = None, **_: Any
    ) -> BatchFeature:
        """Tokenise prompts, right-padded, and normalise videos, one for each placeholder in order.

        Raises: PromptError if the counts of videos and placeholders differ.
        """
        texts = [text] if isinstance(text, str) else list(text)
        if videos is None:
            videos = []
        elif isinstance(videos, np.ndarray) and videos.ndim == 4:
            videos = [videos]
        num_placeholders = sum(prompt.count(PLACEHOLDER) for prompt in texts)
        if num_placeholders != len(videos):
            raise PromptError(
                f"{len(videos)} videos arrived for {num_placeholders} placeholders {PLACEHOLDER}; expected one each; "
                "write the prompt with `prompt`"
            )
        rows = [prompt_ids(self.tokenizer, prompt) for prompt in texts]
        pad = self.tokenizer.pad_token_id or 0
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        values: dict[str, Any] = {
            "input_ids": pad_sequence(rows, batch_first=True, padding_value=pad),
            "attention_mask": mask,
        }
        if len(videos):
            values["pixel_values"] = self._stack([self._pixels(video) for video in videos])
        return BatchFeature(values)

    def prompt(self, question: str, duration_s: float, num_frames: int) -> str:
        """Write the prompt of a question about a video, with its placeholder."""
        return video_prompt(question, duration_s, num_frames)

    def _pixels(self, video: np.ndarray) -> Tensor:
        from longtake.media.transforms import IMAGENET_MEAN, IMAGENET_STD, normalize_frames

        return normalize_frames(np.asarray(video), self.image_size, IMAGENET_MEAN, IMAGENET_STD)

    @staticmethod
    def _stack(videos: list[Tensor]) -> Tensor | list[Tensor]:
        return torch.stack(videos) if len({video.shape for video in videos}) == 1 else videos
