"""HTTP over a connection that must say what it wants in time."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


def patient(headers_s: float | int) -> type[H11Protocol]:
    """Return uvicorn's protocol with a limit on the time until the head of a request is there."""

    class PatientProtocol(H11Protocol):
        """Closes a connection that trickles its head, or sends nothing."""

        _waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:  # an event loop that is not asyncio's has its own class
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._is_between_requests():
                self._wait()
            else:
                self._stop_waiting()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _is_between_requests(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _wait(self) -> None:
            if self._waiting is None:
                self._waiting = self.loop.call_later(headers_s, self._give_up)

        def _stop_waiting(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

        def _give_up(self) -> None:
            self._waiting = None
            if self._is_between_requests() and not self.transport.is_closing():
                self.transport.close()

    return PatientProtocol
