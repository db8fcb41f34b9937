"""The class that lmms-eval makes of `--model longtake`; only lmms-eval imports this file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmms_eval.api.model import lmms  # pyright: ignore[reportMissingImports]

from longtake.core.errors import ConfigError
from longtake.eval.lmms import Answerer, Request, load_model


class Longtake(lmms):
    """Any model of ours, under lmms-eval.

    --model_args: pretrained (a checkpoint's folder or hub name; `random-tiny` for a trial), max_frames, dtype, preset,
    compress, reduce, select (methods by name), frames_kept, untuned, evidence_log (a file that gets a line an answer).
    Several processes of accelerate each take their share (not tried here).
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str = "",
        batch_size: int | str = 1,
        device: str | None = None,
        max_frames: int = 512,
        dtype: str = "auto",
        preset: str = "",
        compress: str = "",
        reduce: str = "",
        select: str = "",
        frames_kept: int = 512,
        untuned: bool = False,
        evidence_log: str = "",
    ) -> None:
        super().__init__()
        from accelerate import PartialState

        if not pretrained:
            raise ConfigError("no model was named; expected --model_args pretrained=FOLDER; random-tiny is for a trial")
        if str(batch_size) != "1":
            raise ConfigError(f"batch_size is {batch_size}; expected 1, a question at a time; leave it out")
        state = PartialState()
        self._rank, self._world_size = state.process_index, state.num_processes
        place = device if self._world_size == 1 else str(state.device)
        model = load_model(
            pretrained, compress=compress, reduce=reduce, preset=preset, dtype=dtype, device=place, untuned=untuned
        )
        self.device = model.device
        self.answerer = Answerer(
            model,
            max_frames=int(max_frames),
            selector=_selector(model, select, int(frames_kept)),
            log=Path(evidence_log) if evidence_log else None,
        )

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Answer requests: text, settings, what finds the visuals, number, task and split of each."""
        asked = []
        for request in requests:
            text, settings, find_visuals, doc_id, task, split = request.args
            visuals = find_visuals(self.task_dict[task][split][doc_id])
            asked.append(Request(text, list(visuals or ()), settings, task, doc_id))
        return self.answerer.answer_all(
            asked, lambda place, text: self.cache_hook.add_partial("generate_until", requests[place].args, text)
        )

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Refuse: answers are written, not weighed.

        Raises: NotImplementedError.
        """
        raise NotImplementedError("longtake writes answers; take a task of output_type generate_until")

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        """Refuse conversations.

        Raises: NotImplementedError.
        """
        raise NotImplementedError("longtake answers one question at a time here; take a task of generate_until")


def _selector(model: Any, name: str, frames_kept: int) -> Any:
    """Return the selector of that name; none for none.

    Raises: ConfigError if there is no such method.
    """
    from longtake.core.registry import find
    from longtake.engine.select import selector_of

    if not name:
        return None
    find("select", name)
    return selector_of(model, frames_kept)
