"""Small training runs: a tiny checkpoint, a few videos, pictures and texts, and a recipe over them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from longtake.convert.load import save
from longtake.media.synthetic import write_clock_video
from longtake.models.tiny import tiny_model
from longtake.train.recipe import Recipe, recipe_from_dict

NUM_VIDEOS, NUM_TEXTS = 4, 4


def turns(question: str, answer: str) -> list[dict]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def write_data(folder: Path) -> Path:
    """Write videos of 2 s, one picture, and records about them in a .jsonl; texts in a .json; return the yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    visual = []
    for number in range(NUM_VIDEOS):
        write_clock_video(folder / f"film{number}.mp4", 2.0, fps=4, size=(32, 64), start_s=number)
        question = f"<image>\nWhat does clock {number} show?"
        visual.append({"video": f"film{number}.mp4", "conversations": turns(question, f"It starts at {number}.")})
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "noise.png")
    visual += [{"image": "noise.png", "conversations": turns("<image> What is it?", f"Noise {n}.")} for n in range(2)]
    texts = [{"conversations": turns(f"What is {n} + 1?", f"{n + 1}")} for n in range(NUM_TEXTS)]
    (folder / "visual.jsonl").write_text("".join(json.dumps(record) + "\n" for record in visual))
    (folder / "texts.json").write_text(json.dumps(texts))
    (folder / "list.yaml").write_text("datasets:\n- json_path: visual.jsonl\n- json_path: texts.json\n")
    return folder / "list.yaml"


def write_start(folder: Path) -> Path:
    return save(tiny_model(), folder)


def small_recipe(start: Path, data: Path, out: Path, **changes: object) -> Recipe:
    values: dict = {
        "name": "small",
        "model": str(start),
        "out": str(out),
        "precision": "float32",
        "gradient_checkpointing": False,
        "rates": {"tower": 1e-4, "connector": 1e-3, "language": 1e-3},
        "data": {"annotations": str(data), "max_frames": 4, "isolate": False, "max_tile_side": 1, "max_failures": 5},
        "optim": {"batch": 2, "max_steps": 6},
        "saving": {"every": 2, "tensorboard": False, "picture": False, "dtype": "float32"},
    }
    values["data"]["rule"] = {"frame_multiple": 4, "min_frames": 4}
    for key, value in changes.items():
        values[key] = values.get(key, {}) | value if isinstance(value, dict) else value
    return recipe_from_dict(values)


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "loss.jsonl").read_text().splitlines()]
