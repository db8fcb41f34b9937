"""The tree of errors. Every message says what arrived, what was expected, and what to do."""


class LongtakeError(Exception):
    """Base of every error that a user can cause; `exit_code` is what the CLI exits with."""

    exit_code = 1


class ConfigError(LongtakeError):
    """A setting is unknown, out of range, or contradicts another."""

    exit_code = 2


class VideoError(LongtakeError):
    """A video or image cannot be opened, decoded or sampled as asked."""

    exit_code = 3


class DecodeTimeoutError(VideoError):
    """The decoder made no progress within its time limit and was killed."""


class BudgetError(LongtakeError):
    """What was asked for does not fit the budget; the message names one that would."""

    exit_code = 4


class PromptError(LongtakeError):
    """A question is empty, contains a visual placeholder, or does not fit the context."""

    exit_code = 5


class CheckpointError(LongtakeError):
    """A checkpoint is missing, incomplete, damaged, or of another architecture."""

    exit_code = 6


class MemoryFormatError(LongtakeError):
    """A stored memory is damaged, or was made by another model or version."""

    exit_code = 7


class MissingExtraError(LongtakeError):
    """An optional dependency is needed; the message says which extra to install."""

    exit_code = 8


class StorageError(LongtakeError):
    """A file could not be written (disk full, read-only); what was there before is whole."""

    exit_code = 9


class MemoryBusyError(StorageError):
    """Another process is writing a memory; it can be had, or gone on with, once that process ends."""


class TrainingError(LongtakeError):
    """Training cannot go on: the loss is not finite, too many samples are broken, or a run does not fit its data."""

    exit_code = 10


class EvaluationError(LongtakeError):
    """An evaluation cannot go on: a process of it failed, or not one item could be answered."""

    exit_code = 11
