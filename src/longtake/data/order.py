"""Which sample comes when: a pure function of seed and step, so that a run can be taken up anywhere."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Int64

from longtake.core.errors import ConfigError


class SampleOrder:
    """Cut records into global batches of num_parts * part_size, shuffled anew every epoch; a rest is dropped.

    modality: 0 for text alone. grouped: records with and without a visual never share a batch. Within a batch records
    are sorted by words and dealt out, so that its parts (processes times accumulation steps) are of like length.

    Raises: ConfigError if no batch can be filled.
    Source: VideoChat-Flash group_by_modality_length.
    """

    def __init__(
        self,
        modality: np.ndarray,
        words: np.ndarray,
        *,
        num_parts: int,
        part_size: int,
        seed: int,
        grouped: bool = True,
    ) -> None:
        self.words, self.num_parts, self.part_size, self.seed = words, num_parts, part_size, seed
        is_text = (modality == 0) if grouped else np.zeros(len(modality), dtype=bool)
        self.groups = [np.flatnonzero(is_text), np.flatnonzero(~is_text)]
        self.num_batches = sum(len(group) // self.batch_size for group in self.groups)
        if self.num_batches == 0:
            sizes = " and ".join(str(len(group)) for group in self.groups if len(group))
            raise ConfigError(
                f"{sizes} records arrived (text alone and visual ones apart); expected at least {self.batch_size}, one "
                "global batch; lower optim.batch or optim.accumulation"
            )
        self._epoch = functools.lru_cache(maxsize=2)(self._shuffled)

    @property
    def batch_size(self) -> int:
        """Samples of a step, over all processes."""
        return self.num_parts * self.part_size

    def __call__(self, step: int) -> Int64[np.ndarray, "parts size"]:
        """Return the records of a step, counted from 0: one row a part."""
        epoch, place = divmod(step, self.num_batches)
        batch = self._epoch(epoch)[place]
        ordered = batch[np.argsort(-self.words[batch], kind="stable")]
        return ordered.reshape(self.part_size, self.num_parts).T

    def _shuffled(self, epoch: int) -> Int64[np.ndarray, "batches all"]:
        random = np.random.default_rng([self.seed, epoch])
        parts = []
        for group in self.groups:
            shuffled = random.permutation(group)
            whole = len(shuffled) // self.batch_size * self.batch_size
            parts.append(shuffled[:whole].reshape(-1, self.batch_size))
        batches = np.concatenate(parts)
        return batches[random.permutation(len(batches))]
