"""Load on a server: are answers those of their own video, how long do they take, what does writing together bring?

`python -m bench.load_serve --seconds 300`: first every question is asked alone, which gives the answers to compare
with. Then, at 1, 4, 16 and 32 clients, the ways of serving take turns for `--rounds`, each for `--short` seconds; the
ratio of answers a second to those of the way `together` is told, and its range. At last 32 clients ask for `--seconds`.
Ways: answers' tokens in turn, one a forward; together; together with one token a frame.

The model is the tiny one of random weights: the texts mean nothing. They are drawn with a seed of the question, so that
they depend on the video more than the best token does; the first line says how many differ. Larger
matrix products round differently; an answer that differs from the one given alone is counted as other, and as wrong
only if it is the answer of another video. Server and clients share one process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from longtake.media.synthetic import write_clock_video
from longtake.models.tiny import tiny_model
from longtake.serve.run import listen, make_server
from longtake.serve.service import Service
from longtake.serve.settings import Limits, ServeSettings

CLIENTS = (1, 4, 16, 32)
WAYS = {"in turn": (1, None), "together": (32, None), "together, 1 token a frame": (32, 1.0)}
NUM_FILMS, NUM_QUESTIONS = 6, 4
NUM_FRAMES, NUM_TOKENS = 256, 24

Key = tuple[int, int, float | None]


class Load:
    """Asks one server, and knows what it should say."""

    def __init__(self, http: httpx.AsyncClient, videos: list[str]) -> None:
        self.http, self.videos = http, videos
        self.alone: dict[Key, str] = {}

    async def ask(self, key: Key) -> tuple[int, str]:
        """Return the status and the answer; every other question is streamed."""
        video, question, tokens_per_frame = key
        body = {"question": f"What is seen in part {question}?", "max_tokens": NUM_TOKENS}
        body |= {
            "tokens_per_frame": tokens_per_frame,
            "stream": bool(question % 2),
            "temperature": 1.0,
            "seed": question,
        }
        reply = await self.http.post(f"/v1/videos/{self.videos[video]}/ask", json=body)
        if reply.status_code != 200 or not body["stream"]:
            return reply.status_code, reply.json().get("answer", "")
        last = [line for line in reply.text.splitlines() if line.startswith("data: ")][-1]
        return reply.status_code, json.loads(last[6:]).get("answer", "")

    async def ask_alone(self) -> None:
        """Ask every question once, one after the other."""
        for tokens_per_frame in {way[1] for way in WAYS.values()}:
            for video in range(NUM_FILMS):
                for question in range(NUM_QUESTIONS):
                    key = video, question, tokens_per_frame
                    status, self.alone[key] = await self.ask(key)
                    assert status == 200, status

    async def run(self, clients: int, seconds: float, tokens_per_frame: float | None) -> dict[str, Any]:
        """Have so many clients ask at random for so long; return what came of it."""
        until, taken, counts = time.monotonic() + seconds, list[float](), {"same": 0, "other": 0, "wrong": 0, "lost": 0}
        began = time.monotonic()

        async def client(number: int) -> None:
            dice = random.Random(number)
            while time.monotonic() < until:
                key = dice.randrange(NUM_FILMS), dice.randrange(NUM_QUESTIONS), tokens_per_frame
                start = time.monotonic()
                status, text = await self.ask(key)
                taken.append(time.monotonic() - start)
                counts[self.judge(key, status, text)] += 1

        await asyncio.gather(*(client(number) for number in range(clients)))
        p50, p95 = np.percentile(taken, (50, 95))
        rate = len(taken) / (time.monotonic() - began)
        return counts | {"clients": clients, "answers_s": rate, "p50_s": float(p50), "p95_s": float(p95)}

    def judge(self, key: Key, status: int, text: str) -> str:
        """Say whether an answer is the one given alone, that of another video, another one, or none."""
        if status != 200:
            return "lost"
        if text == self.alone[key]:
            return "same"
        others = {self.alone[video, key[1], key[2]] for video in range(NUM_FILMS) if video != key[0]}
        return "wrong" if text in others else "other"


async def measure(
    service: Service, address: str, films: list[Path], short_s: float, long_s: float, rounds: int
) -> None:
    """Run all ways and print what they give; every answer of another video ends the run."""
    limits = httpx.Limits(max_connections=64)
    async with httpx.AsyncClient(base_url=address, timeout=600, trust_env=False, limits=limits) as http:
        load = Load(http, [await ingest(http, film) for film in films])
        await load.ask_alone()
        distinct = len(set(load.alone.values()))
        print(f"{len(load.alone)} questions asked alone, {distinct} distinct answers")
        for clients in CLIENTS:
            rates: dict[str, list[float]] = {name: [] for name in WAYS}
            for _ in range(rounds):
                for name in WAYS:
                    rates[name].append((await measure_way(service, load, name, clients, short_s))["answers_s"])
            for name in WAYS:
                ratios = sorted(own / base for own, base in zip(rates[name], rates["together"], strict=True))
                told = {"clients": clients, "way": name, "rounds": rounds, "to_together": ratios[rounds // 2]}
                print(json.dumps(told | {"range": [ratios[0], ratios[-1]]}), flush=True)
        for name in ("together, 1 token a frame", "together"):
            await measure_way(service, load, name, CLIENTS[-1], long_s / 2)


async def measure_way(service: Service, load: Load, name: str, clients: int, seconds: float) -> dict[str, Any]:
    """Load the server in one way and print what it gives.

    Raises: AssertionError if an answer is that of another video, or missing.
    """
    service.answers.max_together = WAYS[name][0]
    rss = psutil.Process().memory_info().rss
    found = await load.run(clients, seconds, WAYS[name][1])
    found |= {"way": name, "seconds": seconds, "rss_mb": (psutil.Process().memory_info().rss - rss) / 1e6}
    print(json.dumps({key: round(v, 3) if isinstance(v, float) else v for key, v in found.items()}), flush=True)
    assert found["wrong"] == 0, "an answer of another video"
    assert found["lost"] == 0, "a question without an answer"
    return found


async def ingest(http: httpx.AsyncClient, film: Path) -> str:
    """Send a film and wait until it can be asked."""
    reply = await http.post("/v1/videos", files={"file": (film.name, film.read_bytes())})
    video = reply.json()
    while video["status"] not in ("ready", "failed"):
        await asyncio.sleep(0.1)
        video = (await http.get(f"/v1/videos/{video['id']}")).json()
    assert video["status"] == "ready", video
    return video["id"]


def main() -> None:
    """Start a server and load it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0, help="with 32 clients, at the end")
    parser.add_argument("--short", type=float, default=5.0, help="seconds of each way in each round before it")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        films = [
            write_clock_video(Path(folder) / f"film{n}.mp4", 64.0 + n, fps=4, size=(48 + 16 * n, 96))
            for n in range(NUM_FILMS)
        ]
        limits = Limits(max_frames=NUM_FRAMES, active=32)
        service = Service(tiny_model(), ServeSettings(store=str(Path(folder) / "store"), port=0, limits=limits))
        listening = listen(service.settings)
        server = make_server(service)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.05)
            address = f"http://127.0.0.1:{listening.getsockname()[1]}"
            asyncio.run(measure(service, address, films, options.short, options.seconds, options.rounds))
        finally:
            server.should_exit = True
            thread.join()


if __name__ == "__main__":
    main()
