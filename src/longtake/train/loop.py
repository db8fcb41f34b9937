"""The training loop: steps that do not depend on how often the run was stopped, or on how many processes share it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, distributed
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from longtake.convert.load import load, save
from longtake.core.errors import ConfigError, TrainingError
from longtake.data.annotations import read_annotations
from longtake.data.failures import Failures
from longtake.data.order import SampleOrder
from longtake.data.samples import Preparation, TrainingSample, control_ids
from longtake.models.loaded import LoadedModel
from longtake.models.videochat_flash import VideoChatFlashForConditionalGeneration
from longtake.train import sharding
from longtake.train.budgets import Budgets
from longtake.train.checkpoints import Checkpoints, Snapshot
from longtake.train.curve import Curve
from longtake.train.feeder import Feeder, regroup
from longtake.train.objective import Objective
from longtake.train.parts import Adapters, build_optimizer, choose_parts, rate_factor, set_rates, trained
from longtake.train.recipe import Recipe

logger = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]
# What may differ between the two halves of a run that was stopped: it does not change a weight.
_FREE = {"out", "saving", "gradient_checkpointing"}
_FREE_DATA = {"workers", "isolate", "max_failures"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a run came to. broken: how many samples each reason left out. seconds: of this part of the run."""

    model: Path
    steps: int
    first_loss: float | None
    last_loss: float | None
    broken: dict[str, int]
    seconds: float
    tokens_per_s: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self) | {"model": str(self.model)}


def train(recipe: Recipe, *, on_progress: Progress | None = None) -> TrainResult:
    """Run a recipe to its end, from where its newest checkpoint stands, and save the model.

    Started by torchrun or accelerate, the processes share every step. The global random state is left as it was.

    Raises: ConfigError for a recipe that does not fit its model, its data or the run in its folder; TrainingError
        for a loss that is not finite (the batch is saved) or too many broken samples; StorageError if the disk is
        full: the newest checkpoint is whole.
    """
    for field in ("model", "out", "data.annotations"):
        if not (recipe.data.annotations if "." in field else getattr(recipe, field)):
            raise ConfigError(f"{field} is empty; expected a path; pass --set {field}=…")
    if (Path(recipe.out) / "model").exists():
        raise ConfigError(f"{recipe.out} holds a finished run; expected a new folder; set out to another, or remove it")
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # else processes without an accelerator do not find each other
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    with torch.random.fork_rng(devices=[accelerator.device] if accelerator.device.type == "cuda" else []):
        return _Run(recipe, accelerator).finish(on_progress)


class Start(NamedTuple):
    """What a run starts from: the loaded model, narrowed to the kind that can be trained, and its adapters."""

    loaded: LoadedModel
    model: VideoChatFlashForConditionalGeneration
    adapters: Adapters | None


def build(recipe: Recipe) -> Start:
    """Load the model that a recipe starts from, in float32, with its adapters and only its parts trainable.

    Raises: ConfigError if it is of another kind than VideoChat-Flash.
    """
    loaded = load(recipe.model, dtype="float32", untuned=True)
    model = loaded.model
    if not isinstance(model, VideoChatFlashForConditionalGeneration):
        raise ConfigError(
            f"{recipe.model} is a {type(model).__name__}; expected a model of the kind of VideoChat-Flash; train one"
        )
    torch.manual_seed(recipe.seed)  # adapters begin with random numbers, which have to be the same in all processes
    adapters = Adapters(model, recipe.lora, recipe.rates) if recipe.lora.rank else None
    choose_parts(model, recipe.rates)
    model.eval()  # running statistics of a convolutional stem stay; only the dropout of adapters is random
    if recipe.lora.dropout:
        for module in model.modules():
            module.train(isinstance(module, torch.nn.Dropout))
    return Start(loaded, model, adapters)


class _Run:
    """One process's side of a run."""

    def __init__(self, recipe: Recipe, accelerator: Accelerator) -> None:
        self.recipe, self.accelerator = recipe, accelerator
        self.out = Path(recipe.out)
        self.failures = Failures(recipe.data.max_failures)
        self.annotations = read_annotations(
            recipe.data.annotations,
            self.failures,
            set_seed=recipe.data.set_seed,
            keep_share=recipe.data.keep_share,
        )
        self.order = SampleOrder(
            self.annotations.modality,
            self.annotations.words,
            num_parts=accelerator.num_processes * recipe.optim.accumulation,
            part_size=recipe.optim.batch,
            seed=recipe.seed,
            grouped=recipe.data.grouped,
        )
        self.num_steps = recipe.optim.max_steps or recipe.optim.epochs * self.order.num_batches
        self.budgets = Budgets(recipe.compression, recipe.seed)
        start = build(recipe)
        self.tokenizer, self.model = start.loaded.tokenizer, start.model
        _check_clips(recipe, self.model)
        self.objective = Objective(
            self.model,
            checkpointing=recipe.gradient_checkpointing,
            no_grad_frames=recipe.compression.no_grad_frames,
        ).to(accelerator.device)
        self.wrapped = self._wrap()
        self.optimizer = build_optimizer(self.model, recipe.rates, recipe.optim)
        self.checkpoints = Checkpoints(self.out / "checkpoints", recipe.saving.keep)
        self.step = self._resume()

    def _wrap(self) -> torch.nn.Module:
        if self.recipe.sharded and self.accelerator.num_processes > 1:
            sharding.shard(self.objective)
            return self.objective
        if self.recipe.sharded:
            logger.warning("sharded is set, and one process holds all weights; start several with torchrun")
        return self.accelerator.prepare(self.objective)

    def _resume(self) -> int:
        """Take up the newest checkpoint; return how many steps were made."""
        snapshot = self.checkpoints.newest()
        if snapshot is None:
            return 0
        self._check_same(snapshot.progress)
        sharding.restore_weights(self.objective, snapshot.weights)
        sharding.restore_optimizer(self.objective, self.optimizer, snapshot.optimizer)
        self.failures.restore(snapshot.progress["failures"])
        logger.info("going on after step %d of %d", snapshot.progress["step"], self.num_steps)
        return int(snapshot.progress["step"])

    def _facts(self) -> dict[str, Any]:
        """Return what has to be the same when a run goes on."""
        recipe = {key: value for key, value in self.recipe.to_dict().items() if key not in _FREE}
        data: Any = recipe["data"]
        recipe["data"] = {key: value for key, value in data.items() if key not in _FREE_DATA}
        facts = recipe | {"records": self.annotations.fingerprint, "parts of a step": self.order.num_parts}
        return json.loads(json.dumps(facts))

    def _check_same(self, progress: dict[str, Any]) -> None:
        before, now = progress["facts"], self._facts()
        changed = [key for key in now if now[key] != before.get(key)]
        if changed:
            raise ConfigError(
                f"{self.out} holds a run with other {', '.join(changed)} (first: {before.get(changed[0])}, now "
                f"{now[changed[0]]}); expected the same; set them back, or set out to another folder"
            )

    def finish(self, on_progress: Progress | None) -> TrainResult:
        """Make the steps that are left, save the model, and say what the run came to."""
        begin, tokens = time.perf_counter(), 0
        main = self.accelerator.is_main_process
        folder = self.out if main else self.out / f"process_{self.accelerator.process_index}"
        saving = (
            self.recipe.saving if main else dataclasses.replace(self.recipe.saving, tensorboard=False, picture=False)
        )
        with self._feeder() as feeder, Curve(folder, saving, self.step) as curve:
            while self.step < self.num_steps:
                row = self._make_step(feeder)
                self.step += 1
                tokens += row["tokens"]
                curve.add(row)
                if on_progress is not None and main:
                    on_progress("train", self.step, self.num_steps)
                if self.step % self.recipe.saving.every == 0 or self.step == self.num_steps:
                    self._save()
                    curve.draw()
            losses = [row["loss"] for row in curve.rows if row["loss"] is not None]
        seconds = time.perf_counter() - begin
        result = TrainResult(
            model=self.out / "model",
            steps=self.step,
            first_loss=losses[0] if losses else None,
            last_loss=losses[-1] if losses else None,
            broken=self._broken(),
            seconds=round(seconds, 3),
            tokens_per_s=round(tokens / seconds, 1),
        )
        if main:
            export(self.recipe, self.checkpoints, result.model)
            (self.out / "report.json").write_text(json.dumps(result.to_dict(), indent=1), encoding="utf-8")
        self.accelerator.wait_for_everyone()
        return result

    def _feeder(self) -> Feeder:
        def encode(text: str) -> list[int]:
            return self.tokenizer.encode(text, add_special_tokens=False)

        return Feeder(
            self.annotations,
            self.order,
            Preparation(
                settings=self.recipe.data,
                encode=encode,
                control=control_ids(encode),
                image_size=self.model.config.vision_config.image_size,
                count_visual=self._most_visual_tokens(),
                context=self.model.config.context_length,
            ),
            self.failures,
            process=self.accelerator.process_index,
            num_processes=self.accelerator.num_processes,
            workers=self.recipe.data.workers,
            num_steps=self.num_steps,
        )

    def _most_visual_tokens(self) -> Callable[[int, str], int]:
        """Return how to count the tokens of a visual under the largest budget."""
        compression = self.recipe.compression
        self.budgets.apply(self.model, max(compression.budgets) if compression.method else None)
        clip = self.model.config.mm_local_num_frames
        counts = {
            kind: self.model.compressor.out_tokens(self.model.vision.grid(frames))
            for kind, frames in (("video", clip), ("image", 1))
        }
        return lambda count, kind: counts[kind] * (count // clip if kind == "video" else count)

    def _make_step(self, feeder: Feeder) -> dict[str, Any]:
        """Make one step; return its line of the curve.

        Raises: TrainingError if the loss or the gradient is not finite; no weight has moved then.
        """
        number, begin = self.step + 1, time.perf_counter()
        torch.manual_seed(hash((self.recipe.seed, number, self.accelerator.process_index)) % 2**63)
        budget = self.budgets.at(number)
        self.budgets.apply(self.model, budget)
        rows = regroup(feeder(self.step), self.recipe.optim.pack_tokens)
        samples = [sample for row in rows for sample in row]
        labelled, tokens, count = self._sum(
            sum(sample.num_labels for sample in samples), sum(sample.num_tokens for sample in samples), len(samples)
        )
        rates = set_rates(self.optimizer, rate_factor(number, self.num_steps, self.recipe.optim))
        line: dict[str, Any] = {"step": number, "loss": None, "tokens": int(tokens), "labelled": int(labelled)}
        line |= {"samples": int(count), "broken": len(self.failures.to_dict()), "tokens_per_frame": budget}
        if labelled:
            line["loss"] = self._backward(rows, labelled)
            line["grad_norm"] = self._clip()
            if not (math.isfinite(line["loss"]) and math.isfinite(line["grad_norm"])):
                self._stop(number, line, samples)
            self.optimizer.step()
        self.optimizer.zero_grad()
        rates_of = {f"lr/{part}": rate for part, rate in rates.items()}
        return line | rates_of | {"seconds": round(time.perf_counter() - begin, 4)}

    def _backward(self, rows: list[list[TrainingSample]], labelled: float) -> float:
        """Add up the gradients of a step's rows; return the loss per labelled token, over all processes."""
        processes = self.accelerator.num_processes
        counts: Any = self.accelerator.gather(self._number(len(rows)))
        most = int(counts.max())
        total = 0.0
        for place, row in enumerate(rows + [[]] * (most - len(rows))):
            with self._sync_at_last(is_last=place == most - 1):
                with self._autocast():
                    found: Tensor = self.wrapped(row)
                self.accelerator.backward(found * (processes / labelled))  # processes are averaged
            total += float(found.detach())
        return self._sum(total)[0] / labelled

    @contextlib.contextmanager
    def _sync_at_last(self, *, is_last: bool) -> Any:
        """Let processes share gradients once a step."""
        if isinstance(self.wrapped, FSDPModule):
            self.wrapped.set_requires_gradient_sync(is_last)
            yield
        elif isinstance(self.wrapped, DistributedDataParallel) and not is_last:
            with self.wrapped.no_sync():
                yield
        else:
            yield

    def _autocast(self) -> Any:
        is_half = self.recipe.precision == "bfloat16"
        return torch.autocast(self.accelerator.device.type, dtype=torch.bfloat16, enabled=is_half)

    def _clip(self) -> float:
        weights = [value for _, value in trained(self.model)]
        norm = torch.nn.utils.clip_grad_norm_(weights, self.recipe.optim.clip)
        return float(sharding.whole(norm))

    def _number(self, value: float | int) -> Tensor:
        return torch.tensor([value], dtype=torch.float64, device=self.accelerator.device)

    def _sum(self, *values: float | int) -> list[float]:
        """Add up numbers over the processes."""
        numbers: Any = self.accelerator.reduce(torch.cat([self._number(value) for value in values]), "sum")
        return numbers.tolist()

    def _stop(self, number: int, line: dict[str, Any], samples: list[TrainingSample]) -> None:
        """Save the batch that broke a run, and stop."""
        path = self.out / f"bad_batch_step_{number}_process_{self.accelerator.process_index}.pt"
        torch.save([dataclasses.asdict(sample) for sample in samples], path)
        raise TrainingError(
            f"step {number} has the loss {line['loss']} and a gradient of norm {line['grad_norm']}; expected finite "
            f"numbers; its {len(samples)} samples are in {path}: look at them, lower rates, or train in float32"
        )

    def _save(self) -> None:
        """Write a checkpoint; every process gives its share, the first one writes."""
        weights = sharding.trained_weights(self.objective)
        optimizer = sharding.optimizer_state(self.objective, self.optimizer)
        progress = {"step": self.step, "facts": self._facts(), "failures": self._reasons()}
        if self.accelerator.is_main_process:
            self.checkpoints.save(Snapshot(weights, optimizer, progress))
        self.accelerator.wait_for_everyone()

    def _reasons(self) -> dict[str, str]:
        """Return the broken samples of all processes."""
        if self.accelerator.num_processes == 1:
            return self.failures.to_dict()
        found: Any = [None] * self.accelerator.num_processes
        distributed.all_gather_object(found, self.failures.to_dict())
        return {name: reason for reasons in found for name, reason in reasons.items()}

    def _broken(self) -> dict[str, int]:
        reasons = list(self._reasons().values())
        return {reason: reasons.count(reason) for reason in sorted(set(reasons))}


def export(recipe: Recipe, checkpoints: Checkpoints, folder: Path) -> Path:
    """Save the newest checkpoint of a run as a model that `longtake.load` opens; adapters are merged.

    Raises: StorageError if the disk is full or the folder is there already; ConfigError if there is no checkpoint.
    """
    snapshot = checkpoints.newest()
    if snapshot is None:
        raise ConfigError(f"{checkpoints.folder} holds no checkpoint; expected one; train first")
    loaded, model, adapters = build(recipe)
    sharding.restore_weights(Objective(model), snapshot.weights)
    if adapters is not None:
        adapters.merge()
    Budgets(recipe.compression, recipe.seed).describe(model)
    model.to(getattr(torch, recipe.saving.dtype))
    return save(loaded, folder)


def _check_clips(recipe: Recipe, model: VideoChatFlashForConditionalGeneration) -> None:
    clip, multiple = model.config.mm_local_num_frames, recipe.data.rule.frame_multiple
    if multiple % clip or recipe.data.max_frames % clip:
        raise ConfigError(
            f"data.rule.frame_multiple is {multiple} and data.max_frames {recipe.data.max_frames}; expected multiples "
            f"of the model's clip length {clip}; set them so"
        )
