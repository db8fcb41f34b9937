"""Many questions, one model: one thread reads them, fairly among keys, another writes all their answers together."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

import torch
from torch import Tensor

from longtake.core.errors import CheckpointError
from longtake.engine.limits import memory_errors
from longtake.models.loaded import LoadedModel
from longtake.models.prompt import stop_ids
from longtake.serve.errors import ApiError, busy
from longtake.serve.jobs import Done, Failed, Job, Listener
from longtake.serve.metrics import Metrics
from longtake.serve.reading import Asked, check_options, read
from longtake.serve.resident import Residents
from longtake.serve.settings import Limits
from longtake.serve.together import decode_together

logger = logging.getLogger("longtake.serve")
FIRST_GUESS_S = 2.0
LONGEST_RETRY_S = 60


class FairQueue:
    """Waiting jobs; keys take turns, each key's own come in order. The caller holds the lock."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[Job]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def of(self, owner: str) -> int:
        """Return how many of a key wait."""
        return len(self._queues.get(owner, ()))

    def put(self, job: Job) -> None:
        """Add a job behind the others of its key."""
        self._queues.setdefault(job.asked.owner, deque()).append(job)

    def pop(self) -> Job:
        """Take the next job of the key whose turn it is."""
        owner, queue = next(iter(self._queues.items()))
        job = queue.popleft()
        del self._queues[owner]
        if queue:
            self._queues[owner] = queue  # at the end of the round
        return job

    def drop(self, unwanted: Callable[[Job], bool]) -> list[Job]:
        """Take out the jobs that are not wanted any more."""
        dropped: list[Job] = []
        for owner, queue in list(self._queues.items()):
            dropped += [job for job in queue if unwanted(job)]
            kept = deque(job for job in queue if not unwanted(job))
            if kept:
                self._queues[owner] = kept
            else:
                del self._queues[owner]
        return dropped


class Answers:
    """Takes questions and tells their listeners what becomes of them.

    Reading a prompt does not hold up the answers that are being written, and an answer joins the others at the next
    token. max_together: how many tokens one forward writes; 1 writes the answers' tokens in turn.
    """

    def __init__(
        self,
        model: LoadedModel,
        residents: Residents,
        limits: Limits,
        metrics: Metrics,
        *,
        max_together: int | None = None,
    ) -> None:
        self.model, self.residents, self.limits, self.metrics = model, residents, limits, metrics
        self.max_together = limits.active if max_together is None else max_together
        self._changed = threading.Condition()
        self._waiting = FairQueue()
        self._arrived: list[tuple[Job, int]] = []
        self._active: list[tuple[Job, int]] = []
        self._reading: Job | None = None
        self._is_closing = self._is_closed = False
        self._typical_s = FIRST_GUESS_S
        self._endings = stop_ids(model.tokenizer)
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in (("read", self._read_all), ("write", self._write_all))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def num_waiting(self) -> int:
        """Count of questions that nobody has read yet."""
        with self._changed:
            return len(self._waiting)

    @property
    def num_active(self) -> int:
        """Count of questions that are being read or answered."""
        return len(self._arrived) + len(self._active) + (self._reading is not None)

    @property
    def is_answering(self) -> bool:
        """Whether anybody waits for an answer; asked often, so that no lock is taken."""
        return self.num_active > 0

    def submit(self, asked: Asked, listener: Listener) -> Job:
        """Accept a question.

        Raises: PromptError for one that could never be answered; ApiError 429 if too many wait, 503 at the end.
        """
        check_options(asked, self.limits)
        with self._changed:
            if self._is_closing:
                raise ApiError(503, "The server is stopping; ask again later.", code="stopping", retry_after_s=30)
            if self._waiting.of(asked.owner) >= self.limits.waiting_per_key:
                raise busy(f"{self.limits.waiting_per_key} questions of this key wait", self._retry_after_s())
            if len(self._waiting) >= self.limits.waiting:
                raise busy(f"{self.limits.waiting} questions wait", self._retry_after_s())
            job = Job(asked, listener, self.limits.answer_s)
            self._waiting.put(job)
            self._changed.notify_all()
        return job

    def _retry_after_s(self) -> int:
        rounds = len(self._waiting) / max(self.limits.active, 1)
        return max(1, min(LONGEST_RETRY_S, math.ceil(rounds * self._typical_s)))

    def close(self, grace_s: float | int) -> None:
        """Accept no more; finish what is under way if that takes no longer than the grace, refuse the rest."""
        deadline = time.monotonic() + grace_s
        with self._changed:
            self._is_closing = True
            self._changed.wait_for(lambda: not len(self._waiting) and not self.num_active, grace_s)
            self._is_closed = True
            left = self._waiting.drop(lambda _: True)
            self._changed.notify_all()
        for job in left:
            self._end(job, Failed(_stopping()))
        for thread in self._threads:
            thread.join(max(1.0, deadline - time.monotonic()))

    def _read_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._may_read())
                if self._is_closed:
                    return
                job = self._reading = self._waiting.pop()
            try:
                self._read(job)
            finally:
                with self._changed:
                    self._reading = None
                    self._changed.notify_all()

    def _may_read(self) -> bool:
        return len(self._waiting) > 0 and len(self._arrived) + len(self._active) < self.limits.active

    def _read(self, job: Job) -> None:
        """Read one question and hand it on with the first token of its answer."""
        if self._is_over(job):
            return
        try:
            reading = read(job.asked, self.model, self.residents, self.limits)
            self.residents.trim()
            job.start(reading, self.model)
        except Exception as error:  # noqa: BLE001 (one question must not end the thread that reads all)
            self._end(job, Failed(error))
            return
        self.metrics.tokens.labels("read").inc(reading.num_read)
        self.metrics.tokens.labels("shared").inc(reading.num_prompt - reading.num_read)
        self.metrics.first_s.observe(time.monotonic() - job.began_s)
        following = self._continue(job, reading.logits)
        if following is not None:
            with self._changed:
                self._arrived.append((job, following))
                self._reading = None
                self._changed.notify_all()

    def _write_all(self) -> None:
        first = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._arrived or self._active)
                if self._is_closed:
                    left = [*self._arrived, *self._active]
                    break
                self._active += self._arrived
                self._arrived.clear()
                active = list(self._active)
            first = first % len(active) if len(active) > self.max_together else 0
            group = (active[first:] + active[:first])[: self.max_together]
            going = {id(job): following for job, following in self._step(group)}
            asked = {id(job) for job, _ in group}
            with self._changed:
                self._active = [
                    (job, going.get(id(job), token))
                    for job, token in self._active
                    if id(job) not in asked or id(job) in going
                ]
                self._changed.notify_all()
            first += len(going)
        for job, _ in left:
            self._end(job, Failed(_stopping()))

    def _step(self, group: list[tuple[Job, int]]) -> list[tuple[Job, int]]:
        """Write one token of each answer; return those that go on, with the token to read next."""
        group = [(job, token) for job, token in group if not self._is_over(job)]
        if not group:
            return []
        try:
            logits = self._forward(group)
        except Exception as error:
            logger.exception("a step of %d answers failed", len(group))
            for job, _ in group:
                self._end(job, Failed(error))
            return []
        self.metrics.steps.inc()
        self.metrics.batch.observe(len(group))
        found = []
        for (job, _), row in zip(group, logits, strict=True):
            following = self._continue(job, row)
            if following is not None:
                found.append((job, following))
        return found

    @torch.no_grad()
    def _forward(self, group: list[tuple[Job, int]]) -> Tensor:
        model = self.model.model
        tokens = torch.tensor([[token] for _, token in group], device=model.input_device)
        with memory_errors(0, self.model):
            hidden = decode_together(model.language, model.embed_text(tokens), [job.cache for job, _ in group])
            return model.lm_head(hidden).squeeze(1).cpu()

    def _continue(self, job: Job, logits: Tensor) -> int | None:
        """Choose a token and show it; none if the answer has ended."""
        try:
            if not logits.isfinite().all():
                raise CheckpointError(
                    f"the model's logits are not finite in {logits.dtype}; expected finite numbers; load the model in "
                    "bfloat16 or float32"
                )
            token = job.choose(logits)
            reason = job.take(token, self._endings)
        except Exception as error:  # noqa: BLE001 (as above)
            self._end(job, Failed(error))
            return None
        self.metrics.tokens.labels("written").inc()
        if reason is None:
            return token
        taken = time.monotonic() - job.began_s
        self._typical_s = 0.9 * self._typical_s + 0.1 * taken
        self.metrics.answer_s.observe(taken)
        self._end(job, Done(reason, job.num_new))
        return None

    def _is_over(self, job: Job) -> bool:
        """End a job that nobody waits for, or that took too long."""
        if job.is_cancelled:
            self.metrics.answers.labels("cancelled").inc()
            return True
        if time.monotonic() > job.deadline_s:
            late = f"No answer within {self.limits.answer_s:g} s; ask for fewer tokens, or when less is asked."
            self._end(job, Failed(ApiError(503, late, code="timeout", retry_after_s=self._retry_after_s())))
            return True
        return False

    def _end(self, job: Job, event: Done | Failed) -> None:
        self.metrics.answers.labels(event.reason if isinstance(event, Done) else "failed").inc()
        job.listener(event)


def _stopping() -> ApiError:
    return ApiError(503, "The server is stopping; ask again later.", code="stopping", retry_after_s=30)
