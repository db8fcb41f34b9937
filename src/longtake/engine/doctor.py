"""What this machine has: versions, devices, decoders, the hub."""

from __future__ import annotations

import platform
import socket
import threading
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from longtake.media.backends import LADDER, is_available

PACKAGES = ("longtake", "torch", "transformers", "av", "pillow", "safetensors", "numpy", "torchcodec", "accelerate")
HUB = ("huggingface.co", 443)
HUB_LIMIT_S = 3.0


def examine() -> dict[str, Any]:
    """Return plain facts; nothing is loaded on a device."""
    import torch

    devices = ["cpu"]
    devices += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: installed(name) for name in PACKAGES},
        "devices": devices,
        "threads": torch.get_num_threads(),
        "decoders": {name: "yes" if is_available(name) else "no" for name in LADDER},
        "hub": "reachable" if hub_reachable() else f"not reachable within {HUB_LIMIT_S:g} s; local folders work",
    }


def installed(name: str) -> str:
    """Return a package's version, or that it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def hub_reachable(limit_s: float = HUB_LIMIT_S) -> bool:
    """Try to connect to the hub, directly and for at most `limit_s` seconds, the look-up of its name included."""
    answered = threading.Event()

    def connect() -> None:
        try:
            with socket.create_connection(HUB, timeout=limit_s):
                answered.set()
        except OSError:
            return

    # A look-up has no time limit of its own, so it happens in a thread that nobody has to wait for.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(limit_s)
    return answered.is_set()
