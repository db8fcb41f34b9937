"""A multipart body, written to disk as it comes; no form is ever held in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from longtake.serve.errors import ApiError
from longtake.serve.store import Incoming

MAX_FIELD_BYTES = 10_000
MAX_PARTS = 32
MAX_HEADER_BYTES = 10_000


def bad_form(why: str, param: str | None = None) -> ApiError:
    """Say what is wrong with a form."""
    return ApiError(400, f"The form {why}; expected one file under the name 'file'.", code="bad_form", param=param)


class Form:
    """Reads one form: its file goes into `incoming`, its other fields are kept as text."""

    def __init__(self, content_type: str, incoming: Incoming, known: frozenset[str]) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise bad_form(f"arrived as {content_type[:100]!r}")
        self.incoming, self.known = incoming, known
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self._name, self._is_file, self._num_parts = "", False, 0
        self._headers: dict[bytes, bytes] = {}
        self._key, self._value, self._text = b"", b"", b""
        self._is_whole = False
        callbacks: Any = {
            "on_part_begin": self._part_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError as error:
            raise bad_form(f"cannot be read ({error})") from error

    async def read(self, body: AsyncIterator[bytes]) -> None:
        """Read the whole body.

        Raises: ApiError for what is no such form; OSError if the disk is full.
        """
        try:
            async for chunk in body:
                self._parser.write(chunk)
        except FormParserError as error:
            raise bad_form(f"cannot be read ({error})") from error
        if not self._is_whole:
            raise bad_form("breaks off")
        if self.filename is None or self.incoming.size == 0:
            raise bad_form("holds no file, or an empty one", "file")

    def _part_begin(self) -> None:
        self._num_parts += 1
        self._headers, self._key, self._value, self._text = {}, b"", b"", b""
        if self._num_parts > MAX_PARTS:
            raise bad_form(f"has more than {MAX_PARTS} parts")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._key += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        if len(self._value) > MAX_HEADER_BYTES:
            raise bad_form("has a part with too long a header")

    def _header_end(self) -> None:
        self._headers[self._key.lower()] = self._value
        self._key, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        filename = options.get(b"filename")
        self._is_file = self._name == "file"
        if self._is_file and self.filename is not None:
            raise bad_form("holds two files", "file")
        if self._is_file:
            self.filename = (filename or b"unnamed").decode("utf-8", "replace")
        elif self._name not in self.known:
            message = f"Unknown parameter: {self._name[:100]!r}."
            raise ApiError(400, message, code="unknown_parameter", param=self._name[:100])

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.incoming.write(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > MAX_FIELD_BYTES:
            raise bad_form(f"has more than {MAX_FIELD_BYTES} bytes in {self._name!r}", self._name)

    def _part_end(self) -> None:
        if not self._is_file:
            self.fields[self._name] = self._text.decode("utf-8", "replace")

    def _end(self) -> None:
        self._is_whole = True
