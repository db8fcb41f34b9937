"""What a run says: accuracy with its interval, chance and baselines beside it, what it cost, what to beware of."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from longtake.eval.result import Record
from longtake.eval.runner import MODEL_ARM, PROBE_PREFIX, Merged
from longtake.eval.statistics import Interval, clustered_bootstrap, corrected, interval, paired
from longtake.eval.task import Task

DEPTH_THIRDS = ("first third", "middle third", "last third")
MOST_SHOWN = 20
LARGE_DIFFERENCE = 0.2


def summarize(merged: Merged, task: Task, not_run: Mapping[str, str], missing: Sequence[str] = ()) -> dict[str, Any]:
    """Return the figures of a complete run as plain values; every accuracy stands with its n and interval.

    not_run: baselines that this model cannot have, with the reason. missing: media that the data folder lacks.
    """
    records, seed = merged.records, merged.manifest.seed
    arms: dict[str, list[Record]] = defaultdict(list)
    for one in records:
        arms[one.arm].append(one)
    own = arms.pop(MODEL_ARM)
    probes = {name.removeprefix(PROBE_PREFIX): found for name, found in arms.items() if name.startswith(PROBE_PREFIX)}
    others = {name: found for name, found in arms.items() if not name.startswith(PROBE_PREFIX)}
    figures = arm_figures(own, seed)
    baselines = {name: against(own, found, seed) for name, found in others.items()}
    baselines |= {name: {"not_run": reason} for name, reason in not_run.items()}
    found = {
        "task": task.name,
        **figures,
        "blind": baselines.get("blind"),
        "baselines": baselines,
        "probes": {name: arm_figures(values, seed) for name, values in probes.items()},
        "position_bias": position_bias(own),
        "proof": proof(own),
        "breakdowns": breakdowns(own, seed),
        "figures": dict(task.figures([one for one in own if one.error is None])),
        "quarantined": quarantined(records),
        "missing_media": {"count": len(missing), "first": list(missing[:MOST_SHOWN])},
        "tokens_per_item": _mean([one.tokens for one in own if one.error is None]),
        "frames_per_item": _mean([one.frames for one in own if one.error is None]),
        "ledger": ledger(merged),
        "seed": seed,
        "manifest": merged.manifest.to_dict(),
    }
    return found | {"findings": findings(found, own, others)}


def arm_figures(records: Sequence[Record], seed: int = 0) -> dict[str, Any]:
    """Return accuracy, n and interval of the records that count, with chance and what could not be read.

    Items that failed are left out of the accuracy; `accuracy_failed_as_wrong` counts them.
    """
    all_counted = [one for one in records if one.counts]
    counted = [one for one in all_counted if one.error is None]
    found: dict[str, Any] = {"n": len(counted), "groups": len({one.group for one in counted})}
    if not counted:
        return found | {"accuracy": None, "interval": None, "chance": None, "failed": len(all_counted)}
    rights, groups = [float(one.right) for one in counted], [one.group for one in counted]
    accuracy, chance = sum(rights) / len(counted), sum(one.chance for one in counted) / len(counted)
    found |= {"accuracy": accuracy, **_interval(interval(rights, groups, seed=seed)), "chance": chance}
    found |= {
        "chance_corrected": corrected(accuracy, chance) if chance < 1 else None,
        "best_constant_answer": best_constant(counted),
        "unparsed": sum(one.parsed is None for one in counted),
        "failed": len(all_counted) - len(counted),
        "accuracy_failed_as_wrong": sum(rights) / len(all_counted),
    }
    scores = [one.score for one in counted]
    if scores != rights:
        bounds = clustered_bootstrap(scores, groups, seed=seed)
        found |= {"mean_score": sum(scores) / len(scores), "mean_score_interval": [bounds.low, bounds.high]}
    return found


def _interval(bounds: Interval) -> dict[str, Any]:
    return {"interval": [bounds.low, bounds.high], "interval_kind": f"{bounds.level:.0%} {bounds.kind}"}


def best_constant(records: Sequence[Record]) -> float:
    """Return what the best single answer to every question would score."""
    return max(Counter(one.answer for one in records).values()) / len(records)


def both(first: Sequence[Record], second: Sequence[Record]) -> list[tuple[Record, Record]]:
    """Return the pairs of records about the same items that count and succeeded in both arms."""
    there = {one.id: one for one in second if one.counts and one.error is None}
    return [(one, there[one.id]) for one in first if one.counts and one.error is None and one.id in there]


def against(own: Sequence[Record], other: Sequence[Record], seed: int = 0) -> dict[str, Any]:
    """Return a baseline's figures, and how the model stands against it on the same items."""
    figures, pairs = arm_figures(other, seed), both(own, other)
    if not pairs:
        return figures
    ours, theirs = [float(one.right) for one, _ in pairs], [float(one.right) for _, one in pairs]
    test = paired(ours, theirs, [one.group for one, _ in pairs], seed=seed)
    return figures | {
        "tokens_per_item": _mean([one.tokens for one in other if one.error is None]),
        "model_minus_this": test.difference,
        "difference_interval": [test.interval.low, test.interval.high],
        "only_model_right": test.only_first,
        "only_this_right": test.only_second,
        "mcnemar_p": test.p,
        "model_is": test.verdict,
        "same_replies": sum(one.text == another.text for one, another in pairs) / len(pairs),
    }


def breakdowns(records: Sequence[Record], seed: int = 0) -> dict[str, dict[str, Any]]:
    """Return the figures again by each kind of breakdown; of items that do not count where a name has no others."""
    groups: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for one in records:
        for kind, name in one.breakdowns.items():
            groups[kind][name].append(one)
    for names in groups.values():
        for name, found in names.items():
            names[name] = [one for one in found if one.counts] or [
                dataclasses.replace(one, counts=True) for one in found
            ]
    keep = ("accuracy", "n", "interval", "chance", "unparsed")
    return {
        kind: {name: _only(arm_figures(found, seed), keep) for name, found in sorted(names.items(), key=_by_number)}
        for kind, names in groups.items()
    }


def _by_number(entry: tuple[str, Any]) -> tuple[float, str]:
    try:
        return float(entry[0]), entry[0]
    except ValueError:
        return float("inf"), entry[0]


def _only(figures: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: figures[name] for name in names if name in figures}


def position_bias(records: Sequence[Record]) -> dict[str, Any]:
    """Return how often each answer was given and was right to give, where there are few; it shows a favourite letter.

    Nothing where there are more than ten answers.
    """
    counted = [one for one in records if one.counts and one.error is None and one.parsed is not None]
    given, right = Counter(str(one.parsed) for one in counted), Counter(one.answer for one in counted)
    names = sorted(set(given) | set(right))
    if not counted or len(names) > 10:
        return {}
    return {name: {"given": given[name] / len(counted), "right": right[name] / len(counted)} for name in names}


def proof(records: Sequence[Record]) -> dict[str, Any]:
    """Return how often the proof of an answer was sampled, reached the last layer, was cited; nothing where unknown.

    accuracy_if_…: of the items for which that holds, or does not.
    """
    known = [one for one in records if one.counts and one.error is None and "covered" in one.extra]
    if not known:
        return {}
    found: dict[str, Any] = {"n": len(known)}
    for name in ("covered", "survived", "cited"):
        found[name] = sum(bool(one.extra[name]) for one in known) / len(known)
    for name, wanted in (("accuracy_if_survived", True), ("accuracy_if_lost", False)):
        found[name] = _mean([float(one.right) for one in known if bool(one.extra["survived"]) == wanted])
    return found


def quarantined(records: Sequence[Record]) -> dict[str, Any]:
    """Return the items that failed, in any arm: how many, and the first of them with their errors."""
    failed = [one for one in records if one.error is not None]
    return {
        "count": len(failed),
        "items": len({one.id for one in failed}),
        "first": [{"id": one.id, "arm": one.arm, "error": one.error} for one in failed[:MOST_SHOWN]],
    }


def ledger(merged: Merged) -> dict[str, Any]:
    """Return the seconds of each stage, added up over all processes, and the largest memory of any."""
    total = sum(merged.stages.values())
    return {
        "stages": {name: seconds for name, seconds in sorted(merged.stages.items()) if name != "unstaged"},
        "unstaged_s": merged.stages.get("unstaged", 0.0),
        "total_s": total,
        **merged.peaks,
    }


def findings(figures: Mapping[str, Any], own: Sequence[Record], others: Mapping[str, Sequence[Record]]) -> list[str]:
    """Return what a reader must not overlook, in plain sentences."""
    found: list[str] = []
    rules: list[Callable[[], str | None]] = [
        lambda: _no_skill(figures),
        *(lambda name=name: _no_better(name, figures["baselines"][name]) for name in others),
        lambda: _leak(figures),
        lambda: _failures(figures),
        lambda: _uncovered(figures),
    ]
    for rule in rules:
        said = rule()
        if said is not None:
            found.append(said)
    return found


def _no_skill(figures: Mapping[str, Any]) -> str | None:
    if figures["accuracy"] is None:
        return "no item succeeded: there is no accuracy"
    if figures["interval"][0] > figures["chance"]:
        return None
    return (
        f"no evidence of skill: chance ({figures['chance']:.3f}) is not below the interval "
        f"{figures['interval'][0]:.3f} to {figures['interval'][1]:.3f}"
    )


def _no_better(name: str, baseline: Mapping[str, Any]) -> str | None:
    """Say that the model is no better than a baseline, as the paired test has it."""
    if "model_is" not in baseline or baseline["model_is"] == "better":
        return None
    what = {
        "blind": "the model is blind: with a black film it scores no less",
        "single-frame": "one frame is enough: the middle frame alone scores no less",
        "random-drop": "the method under test is not better than random drop of as many tokens",
        "low-resolution": "a plain resize to as many tokens scores no less",
    }[name]
    low, high = baseline["difference_interval"]
    if high > LARGE_DIFFERENCE and name != "random-drop":  # nothing is shown either way
        what = f"so few items do not tell the model from the baseline {name}"
    said = (
        f"{what} (difference {baseline['model_minus_this']:+.3f}, {low:+.3f} to {high:+.3f}, McNemar "
        f"p {baseline['mcnemar_p']:.3f}, n {baseline['n']})"
    )
    return f"{said}; every reply is the same" if baseline["same_replies"] == 1 else said


def _leak(figures: Mapping[str, Any]) -> str | None:
    blind = figures["blind"]
    if not blind or blind.get("accuracy") is None or blind["interval"][0] <= blind["chance"]:
        return None
    return (
        f"the questions leak: without a picture {blind['accuracy']:.3f} are right "
        f"({blind['interval'][0]:.3f} to {blind['interval'][1]:.3f}), by chance {blind['chance']:.3f}"
    )


def _failures(figures: Mapping[str, Any]) -> str | None:
    items, missing = figures["quarantined"]["items"], figures["missing_media"]["count"]
    if not items and not missing:
        return None
    return f"{items} items failed and {missing} media are missing: the accuracy is of the rest"


def _uncovered(figures: Mapping[str, Any]) -> str | None:
    seen = figures["proof"]
    if not seen or seen["survived"] == 1:
        return None
    return (
        f"of {seen['n']} answers the proof was sampled for {seen['covered']:.1%} and a token of it reached the last "
        f"layer for {seen['survived']:.1%}: the rest are guesses"
    )


def _mean(values: Sequence[float | int]) -> float | None:
    return sum(values) / len(values) if values else None
