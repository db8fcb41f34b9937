"""What goes wrong on the way to an answer, in the form that OpenAI's clients know."""

from __future__ import annotations

from typing import Any

from longtake.core.errors import (
    BudgetError,
    CheckpointError,
    ConfigError,
    LongtakeError,
    MemoryFormatError,
    PromptError,
    StorageError,
    VideoError,
)

_STATUS: tuple[tuple[type[LongtakeError], int, str], ...] = (
    (PromptError, 400, "invalid_prompt"),
    (BudgetError, 400, "over_budget"),
    (ConfigError, 400, "invalid_setting"),
    (VideoError, 422, "bad_video"),
    (MemoryFormatError, 409, "bad_memory"),
    (StorageError, 507, "storage"),
    (CheckpointError, 500, "bad_model"),
)
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A refusal: the status, what is wrong with which parameter, and when to come again."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """Return the JSON of it."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Return the headers of it."""
        found = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return found | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


def not_found(what: str, name: str) -> ApiError:
    """Say that there is no such thing; the same whether it never was or belongs to another key."""
    return ApiError(404, f"No {what} {name!r} is here; list those that are.", code="not_found")


def busy(what: str, retry_after_s: int) -> ApiError:
    """Say that there is too much to do."""
    message = f"{what}; expected fewer at once; come again in {retry_after_s} s."
    return ApiError(429, message, code="too_busy", retry_after_s=retry_after_s)


def as_api_error(error: Exception) -> ApiError:
    """Return what a client is told; of an error that is not ours nothing but that there was one."""
    if isinstance(error, ApiError):
        return error
    for kind, status, code in _STATUS:
        if isinstance(error, kind):
            return ApiError(status, str(error), code=code)
    if isinstance(error, OSError):
        return ApiError(507, f"The server could not store it ({error.strerror}).", code="storage")
    return ApiError(500, f"The server failed ({type(error).__name__}); see its log.", code="internal_error")
