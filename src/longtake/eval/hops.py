"""Where chains of cards break: accuracy hop by hop, and what was answered instead."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from longtake.eval.result import Record

DIRECT, PREFIX, POINTER = "NH", "NH prefix", "NH pointer"


def hop_figures(records: Sequence[Record]) -> Mapping[str, object]:
    """Return figures of the records about chains, as `extra` tells of them; nothing where there are none.

    hop_accuracy: of the questions that stop at hop j. given_the_hop_before: of those whose chain was right one hop
    earlier. all_hops_right: chains that are right at every hop that was asked. decoy_rate, start_card_rate: of the
    questions for the last card, how often the answer was that of another chain, or of the card that is named.
    pointer_accuracy: of the questions what a card points to.
    """
    about = [one for one in records if one.error is None and "chain" in one.extra]
    direct = [one for one in about if one.extra["kind"] == DIRECT]
    if not direct:
        return {}
    steps = [one for one in about if one.extra["kind"] == PREFIX] or direct
    by_chain: dict[str, dict[int, bool]] = defaultdict(dict)
    for one in steps:
        by_chain[one.extra["chain"]][one.extra["hop"]] = one.right
    hops = sorted({hop for chain in by_chain.values() for hop in chain})
    reached = {hop: [chain[hop] for chain in by_chain.values() if hop in chain] for hop in hops}
    given = {
        hop: [chain[hop] for chain in by_chain.values() if hop in chain and chain.get(hop - 1, False)] for hop in hops
    }
    pointers = [one.right for one in about if one.extra["kind"] == POINTER]
    return {
        "chains": len(by_chain),
        "hop_accuracy": {str(hop): _share(values) for hop, values in reached.items()},
        "given_the_hop_before": {str(hop): _share(values) for hop, values in given.items() if hop - 1 in reached},
        "all_hops_right": _share([all(chain.values()) for chain in by_chain.values()]),
        "direct_by_hops": {
            str(hop): _share([one.right for one in direct if one.extra["hop"] == hop])
            for hop in sorted({one.extra["hop"] for one in direct})
        },
        "decoy_rate": _share([one.extra["decoy"] for one in direct]),
        "start_card_rate": _share([one.extra["start"] for one in direct]),
        "pointer_accuracy": _share(pointers),
    }


def _share(values: Sequence[bool]) -> float | None:
    """Return the share of true ones; none of nothing."""
    return sum(values) / len(values) if values else None
