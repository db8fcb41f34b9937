"""Token merging against the released code: which tokens, in which order, and their means."""

from __future__ import annotations

import pytest
import torch

from longtake.ops.matching import match, merge, merge_steps
from tests.parity.vcf_goldens import cases, load


@pytest.mark.parametrize("case", cases("a_tome_step_"))
def test_one_step_merges_the_same_tokens(case: str) -> None:
    facts, tensors = load(case)
    x, metric = tensors["input.x"], tensors["input.metric"]
    size = tensors.get("input.size", torch.ones(*x.shape[:2], 1)).squeeze(-1)
    step = match(metric, facts["requested_r"])
    source, unmerged, partner = (tensors[f"output.{name}_idx"].long() for name in ("src", "unm", "dst"))
    assert source.shape[1] == facts["effective_r"]
    stay = unmerged.shape[1]
    assert torch.equal(step.target[:, ::2].gather(1, source), stay + partner)
    assert torch.equal(step.target[:, ::2].gather(1, unmerged), torch.arange(stay).expand_as(unmerged))
    torch.testing.assert_close(step.mean(x, size), tensors["output.x"], atol=1e-5, rtol=0)
    assert torch.equal(step.sum(size.unsqueeze(-1)), tensors["output.size"])


@pytest.mark.parametrize("case", cases("a_tome_merge_"))
def test_whole_merge_assigns_every_token_as_released(case: str) -> None:
    facts, tensors = load(case)
    x = tensors["input.x"]
    assert merge_steps(x.shape[1], facts["target"]) == facts["r_list"]
    merged, size, reduction = merge(x, facts["target"], facts["heads"])
    assert torch.equal(reduction.target, tensors["output.assign"].long())
    torch.testing.assert_close(merged, tensors["output.x"], atol=1e-5, rtol=0)
    torch.testing.assert_close(reduction.mean(x), tensors["output.x"], atol=1e-5, rtol=0)
    assert torch.equal(size, tensors["output.size"])


def test_no_gradient_flows_through_the_matching_but_all_through_the_means() -> None:
    x = torch.randn(2, 36, 16, requires_grad=True)
    merged, _, _ = merge(x, 9, 2)
    merged.sum().backward()
    assert x.grad is not None and bool(x.grad.isfinite().all()) and bool((x.grad != 0).all())
