"""Supervised compression tuning: which compressor and reducer a step runs with."""

from __future__ import annotations

import numpy as np

from longtake.core.config import StrictConfig
from longtake.core.registry import find
from longtake.methods.compress.tome import ToMe
from longtake.models.videochat_flash import VideoChatFlashForConditionalGeneration
from longtake.train.recipe import CompressionSettings


class Budgets:
    """Give a model another budget every step: a pure function of the seed and the step.

    Raises: ConfigError if there is no such method, or it has no such fields.
    """

    def __init__(self, settings: CompressionSettings, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self._methods: dict[int, tuple[ToMe, StrictConfig]] = {}
        if settings.method is not None:
            kind = find("reduce", settings.method)
            for budget in settings.budgets:
                reducer = kind.from_dict({"tokens_per_frame": budget, **settings.fields})
                self._methods[budget] = ToMe(tokens_per_frame=budget, tokens_per_image=budget), reducer

    def at(self, step: int) -> int | None:
        """Return the tokens a frame of a step; none without compression."""
        if self.settings.method is None:
            return None
        return int(np.random.default_rng([self.seed, step]).choice(self.settings.budgets))

    def apply(self, model: VideoChatFlashForConditionalGeneration, budget: int | None) -> None:
        """Set the model's compressor and reducer."""
        if budget is not None:
            model.compressor, model.reducer = self._methods[budget]  # pyright: ignore[reportAttributeAccessIssue]

    def describe(self, model: VideoChatFlashForConditionalGeneration) -> None:
        """Write into the model's configuration what its weights were tuned for: the largest budget."""
        if self.settings.method is None:
            return
        largest = max(self.settings.budgets)
        compressor, reducer = self._methods[largest]
        self.apply(model, largest)
        model.config.methods = (model.config.methods or {}) | {
            "compress": {"name": "tome", **compressor.to_dict()},
            "reduce": {"name": self.settings.method, **reducer.to_dict()},
        }
