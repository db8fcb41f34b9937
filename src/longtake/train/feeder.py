"""Samples for each step, prepared a step ahead in threads; broken ones are counted and left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from longtake.data.annotations import Annotations
from longtake.data.failures import BrokenSampleError, Failures
from longtake.data.order import SampleOrder
from longtake.data.samples import TrainingSample

Prepare = Callable[..., TrainingSample]


class Feeder:
    """Hand out this process's share of each step's samples.

    A broken sample leaves its batch smaller; no other takes its place, so the order stays a function of the step.
    """

    def __init__(
        self,
        annotations: Annotations,
        order: SampleOrder,
        prepare: Prepare,
        failures: Failures,
        *,
        process: int,
        num_processes: int,
        workers: int,
        num_steps: int,
    ) -> None:
        self.annotations, self.order, self.prepare, self.failures = annotations, order, prepare, failures
        self.process, self.num_processes, self.num_steps = process, num_processes, num_steps
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="longtake-samples")
        self._waiting: dict[int, list[list[tuple[int, Future[TrainingSample]]]]] = {}

    def __call__(self, step: int) -> list[list[TrainingSample]]:
        """Return the samples of a step, counted from 0: a list for each accumulation step.

        Raises: TrainingError if too many samples were broken by now.
        """
        self._begin(step)
        if step + 1 < self.num_steps:
            self._begin(step + 1)
        return [[found for item in part if (found := self._result(*item))] for part in self._waiting.pop(step)]

    def _begin(self, step: int) -> None:
        if step not in self._waiting:
            parts = self.order(step)[self.process :: self.num_processes]
            self._waiting[step] = [
                [(index, self._threads.submit(self._load, index)) for index in part] for part in parts.tolist()
            ]

    def _load(self, index: int) -> TrainingSample:
        try:
            record, root, modality = self.annotations.record(index)
        except (OSError, ValueError) as error:
            raise BrokenSampleError("bad_json", f"the list changed while it was read ({error})") from error
        return self.prepare(self.annotations.name(index), record, root, modality)

    def _result(self, index: int, future: Future[TrainingSample]) -> TrainingSample | None:
        try:
            return future.result()
        except BrokenSampleError as error:
            self.failures.add(self.annotations.name(index), error.reason, str(error))
            return None

    def __enter__(self) -> Feeder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)


def regroup(parts: Sequence[Sequence[TrainingSample]], pack_tokens: int) -> list[list[TrainingSample]]:
    """Cut a step's samples into rows of up to `pack_tokens` tokens, in order; 0 leaves them as they are."""
    if not pack_tokens:
        return [list(part) for part in parts]
    rows: list[list[TrainingSample]] = []
    room = 0
    for sample in (sample for part in parts for sample in part):
        if not rows or sample.num_tokens > room:
            rows.append([])
            room = pack_tokens
        rows[-1].append(sample)
        room -= sample.num_tokens
    return rows or [[]]
