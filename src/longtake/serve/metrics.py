"""What a server counts, in the form that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """The counters of one server; two servers in one process do not meet."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self.requests = Counter("longtake_requests", "HTTP requests", ["route", "status"], registry=registry)
        self.answers = Counter("longtake_answers", "Answers by how they ended", ["reason"], registry=registry)
        self.tokens = Counter("longtake_tokens", "Tokens", ["kind"], registry=registry)
        self.steps = Counter("longtake_decode_steps", "Forwards that wrote tokens", registry=registry)
        self.batch = Histogram(
            "longtake_batch_answers", "Answers in one forward", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
        )
        self.first_s = Histogram(
            "longtake_first_token_seconds", "From question to first token", buckets=_SECONDS, registry=registry
        )
        self.answer_s = Histogram(
            "longtake_answer_seconds", "From question to end", buckets=_SECONDS, registry=registry
        )
        self.ingests = Counter("longtake_ingests", "Videos by how they ended", ["status"], registry=registry)
        self.frames = Counter("longtake_ingested_frames", "Frames encoded", registry=registry)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show a number that is looked up when it is asked for."""
        Gauge(f"longtake_{name}", text, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """Return all of it."""
        return generate_latest(self._registry)
