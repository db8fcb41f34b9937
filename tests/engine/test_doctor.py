"""Doctor: plain facts about this machine, quickly even without a network."""

from __future__ import annotations

import json
import socket
import time

import pytest
import torch

from longtake import __version__
from longtake.engine import doctor
from longtake.engine.doctor import examine, hub_reachable, installed


def test_facts_are_plain_and_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "hub_reachable", lambda: False)
    facts = examine()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["packages"]["torch"] == torch.__version__
    assert facts["decoders"]["pyav"] == "yes"
    assert facts["devices"][0] == "cpu"
    assert "not reachable" in facts["hub"]


def test_a_missing_package_is_named_as_missing():
    assert installed("no-such-package-at-all") == "not installed"
    assert __version__


def refuse(*_: object, **__: object) -> socket.socket:
    raise ConnectionRefusedError


def hang(*_: object, **__: object) -> socket.socket:
    time.sleep(5)
    raise TimeoutError


@pytest.mark.parametrize("connect, limit_s", [(refuse, 3.0), (hang, 0.2)])
def test_no_network_is_found_out_within_the_limit(connect, limit_s: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(socket, "create_connection", connect)
    start = time.monotonic()
    assert not hub_reachable(limit_s)
    assert time.monotonic() - start < 1.0


def test_an_answer_is_seen(monkeypatch: pytest.MonkeyPatch):
    near, far = socket.socketpair()
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: near)
    assert hub_reachable()
    far.close()
