"""Where a question and a video meet before any layer has run: how far visual tokens name the question's words."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from longtake.models.loaded import LoadedModel
from longtake.models.prompt import check_question

# Changed when the same model and tokens give other vectors than before: indexes are then built anew.
NAMING_VERSION = 1


@torch.no_grad()
def question_vector(loaded: LoadedModel, question: str) -> Float[Tensor, "D"]:
    """Return the mean row of the language model's head over a question's words, less that over all words; length one.

    Its product with the head's input is how much more a place names the words of the question than any word.

    Raises: PromptError for an empty question, or one with control texts.
    """
    text = f" {check_question(question)}"  # a word has another token at the beginning of a line
    ids = torch.tensor(loaded.tokenizer(text, add_special_tokens=False)["input_ids"])
    head = loaded.model.lm_head.weight
    words = head[ids.to(head.device)].float().mean(0)
    return F.normalize(words - head.float().mean(0), dim=0).cpu()


@torch.no_grad()
def token_vectors(loaded: LoadedModel, features: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """Return what the language model's head would be given if visual tokens were its last layer's; length one each.

    The product with `question_vector` is the logit of the question's words at a token, up to the length of both. A
    model that is trained to name what its tokens show (`longtake-tiny`) is found by it; for others it is a guess.
    """
    weight = loaded.model.language.embed_tokens.weight
    normed: Tensor = loaded.model.language.norm(features.to(device=weight.device, dtype=weight.dtype))
    return F.normalize(normed.float(), dim=-1).cpu()
