"""Malformed requests made from the interface's own description: `python -m tests.serve.many 1000 SEED`."""

from __future__ import annotations

import sys
import tempfile
import unittest
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from longtake.models.tiny import tiny_model
from tests.serve.conftest import Live, serving

NUM_KINDS = 34  # seventeen operations, each with bodies that fit and bodies that do not
SECRET_PLACES = ("/root", "/home", "Traceback", "site-packages")


def throw(live: Live, num_each: int, start: int) -> Counter[int]:
    """Send bodies that fit and bodies that do not to every operation; return how often each status came.

    Raises: AssertionError for a failure of the server, an error in another form, or one that tells too much.
    """
    with live.http() as http:
        schema = schemathesis.openapi.from_dict(http.get("/openapi.json").json())
        statuses: Counter[int] = Counter()
        for found in schema.get_all_operations():
            operation = found.ok()
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                _throw_one(operation, mode, http, num_each, start, statuses)
        assert http.get("/health").status_code == 200
    return statuses


def _throw_one(
    operation: Any, mode: GenerationMode, http: httpx.Client, num_each: int, start: int, statuses: Counter[int]
) -> None:
    @seed(start)
    @settings(
        max_examples=num_each,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def one(case: Any) -> None:
        try:
            reply = case.call(base_url=str(http.base_url), timeout=60)
        except (requests.exceptions.RequestException, UnicodeError, ValueError):
            statuses[0] += 1  # what no client can send, or what the server closes at once
            return
        statuses[reply.status_code] += 1
        assert reply.status_code < 500, (operation.method, operation.path, case.body, reply.text)
        if reply.status_code >= 400:
            assert not any(place in reply.text for place in SECRET_PLACES), reply.text
            if "application/json" in str(reply.headers.get("content-type")):
                assert set(reply.json()["error"]) == {"message", "type", "param", "code"}

    try:
        one()
    except (Unsatisfiable, unittest.SkipTest, pytest.skip.Exception):
        return  # an operation without parameters can be given nothing wrong


def main(count: int, start: int) -> None:
    """Send about `count` requests and say what came of them."""
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(tiny_model(), Path(folder), limits={"max_tokens": 2}) as live,
    ):
        throw(live, 2, start)
        before = psutil.Process().memory_info().rss
        statuses = throw(live, max(1, count // NUM_KINDS), start + 1)
        grown = (psutil.Process().memory_info().rss - before) / 1e6
    sys.stdout.write(f"{sum(statuses.values())} requests: {dict(sorted(statuses.items()))}; {grown:.1f} MB more\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
