"""Bodies that nobody should send get an error in OpenAI's form, and the server stays up."""

from __future__ import annotations

import json

import pytest

from tests.serve.conftest import Live
from tests.serve.many import throw

POSTS = ("/v1/chat/completions", "/v1/videos", "/v1/videos/video-" + "0" * 24 + "/ask", "/v1/files")
BODIES = (
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b"{}" * 3,
    b'{"messages": NaN}',
    b'{"model": "longtake", "messages": [{"role": "tool"}]}',
    b'{"model": "longtake", "messages": [{"role": "user", "content": [{"type": "audio"}]}]}',
    json.dumps({"model": "longtake", "messages": [{"role": "user", "content": "\ud800"}]}).encode(),
    b"[" * 50_000,
    b'{"question": "x", "max_tokens": 1e400}',
    b'{"question": "x", "history": [{"role": "assistant", "text": "y"}]}',
)
FORMS = (
    b"--x\r\n",
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nGIF87a',
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n#EXTM3U\r\n--x--\r\n',
    b"--x\r\n" * 100,
    b"nonsense" * 100,
    b'--x\r\nContent-Disposition: form-data; name="' + b"a" * 20_000 + b'"\r\n\r\nb\r\n--x--\r\n',
    b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n' + b"a" * 20_000 + b"\r\n--x--\r\n",
)


@pytest.mark.parametrize("path", POSTS)
def test_each_malformed_body_is_refused_with_a_reason(live: Live, path: str) -> None:
    kinds = [("application/json", body) for body in BODIES]
    kinds += [("multipart/form-data; boundary=x", form) for form in FORMS]
    kinds += [(f"multipart/form-data{more}", b"x") for more in ("", "; boundary=" + "y" * 5000)]
    kinds.append(("text/plain", b"x"))
    with live.http() as http:
        for kind, body in kinds:
            reply = http.post(path, content=body, headers={"Content-Type": kind})
            assert 400 <= reply.status_code < 500, (kind, body[:80], reply.text)
            error = reply.json()["error"]
            assert error["message"] and error["type"] == "invalid_request_error"
        assert http.get("/health").status_code == 200
        assert http.get("/nowhere").json()["error"]["code"] == "not_found"
        assert http.put("/v1/files").status_code == 405


@pytest.mark.timeout(900)
def test_requests_made_from_the_description_find_no_failure(live: Live) -> None:
    """A few of them; `python -m tests.serve.many 1000 SEED` sends more."""
    statuses = throw(live, 1, 0)
    assert sum(statuses.values()) > 20
    assert sum(count for status, count in statuses.items() if status >= 400) > 10
