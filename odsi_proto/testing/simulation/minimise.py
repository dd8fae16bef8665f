"""Makes a failing scenario small: fewer faults, a shorter path, fewer tokens, a plainer network."""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace

from odsi_proto.errors import ConfigError
from odsi_proto.testing.simulation.faults import OF_LINKS, Fault
from odsi_proto.testing.simulation.options import SimOptions
from odsi_proto.testing.simulation.runner import run
from odsi_proto.testing.simulation.scenario import Scenario

TRIES_MAX = 2_000
"""Runs that one minimisation may take."""

PLAIN = SimOptions()
_SIZES = ("stages", "clients", "requests", "tokens", "prompt_positions", "chunk_positions")
"""Options of which less is better, down to 1; of the others the default is best."""


def minimise(scenario: Scenario, *, progress: Callable[[str, int, int], None] | None = None) -> Scenario:
    """The smallest scenario found for which the same checker fails; ``ConfigError`` if none does.

    ``progress`` is told what is done, how many runs were made, and how many there are at most.
    """
    first = run(scenario).failure
    if first is None:
        raise ConfigError("every check holds in this scenario, so there is nothing to minimise")
    tries = 0

    def fails(candidate: Scenario) -> bool:
        nonlocal tries
        tries += 1
        if progress is not None:
            progress("scenarios tried", tries, TRIES_MAX)
        failure = run(candidate).failure
        return failure is not None and failure.check == first.check

    best = scenario
    while True:
        before = best
        for make in (_without_faults, _smaller_options, _smaller_faults):
            best = _shrink(best, make, fails, lambda: tries < TRIES_MAX)
        if best == before or tries >= TRIES_MAX:
            return best


def _shrink(
    best: Scenario,
    make: Callable[[Scenario], Iterator[Scenario]],
    fails: Callable[[Scenario], bool],
    may_try: Callable[[], bool],
) -> Scenario:
    """Take the first smaller scenario that still fails, and begin again from it."""
    candidates = make(best)
    while may_try():
        candidate = next(candidates, None)
        if candidate is None:
            return best
        if candidate != best and fails(candidate):
            best = candidate
            candidates = make(best)
    return best


def _without_faults(scenario: Scenario) -> Iterator[Scenario]:
    """Delta debugging: without halves, quarters, ..., single faults."""
    plan, size = scenario.plan, len(scenario.plan)
    while size:
        for at in range(0, len(plan), size):
            yield replace(scenario, plan=plan[:at] + plan[at + size :])
        size //= 2


def _smaller_options(scenario: Scenario) -> Iterator[Scenario]:
    """One option at a time: plain, or less; limits back at their default."""
    options = scenario.options
    for name, _ in options.limits_set:
        left = tuple(item for item in options.limits_set if item[0] != name)
        yield _with(scenario, limits_set=left)
    for name in _SIZES:
        value: int = getattr(options, name)
        for smaller in dict.fromkeys((1, value // 2, value - 1)):
            if 1 <= smaller < value:
                yield _with(scenario, **{name: smaller})
    for field in fields(SimOptions):
        name, plain = field.name, getattr(PLAIN, field.name)
        if name not in _SIZES and name not in {"limits_set", "safety_us"}:
            yield _with(scenario, **{name: plain})


def _smaller_faults(scenario: Scenario) -> Iterator[Scenario]:
    """One number of one fault at a time: 0, or half; and the safety phase no longer than they last."""
    for index, fault in enumerate(scenario.plan):
        for name in ("for_us", "amount", "at_us"):
            value: int = getattr(fault, name)
            for smaller in (0, value // 2):
                if smaller != value:
                    changed = replace(fault, **{name: smaller})  # type: ignore[arg-type]  # all three are ints
                    yield _replaced(scenario, index, changed)
    last_us = max((fault.until_us for fault in scenario.plan), default=0) + 1
    if last_us < scenario.options.safety_us:
        yield _with(scenario, safety_us=last_us)


def _with(scenario: Scenario, **changes: object) -> Scenario:
    """With other options; faults of nodes that are gone go with them."""
    options = replace(scenario.options, **changes)  # type: ignore[arg-type]  # each of its own field
    names = {*options.stage_names, *options.client_names, "rogue"}
    links = {name for link in options.links for name in (link, link[::-1])}
    plan = tuple(
        fault
        for fault in scenario.plan
        if fault.target in names and (fault.kind not in OF_LINKS or (fault.target, fault.peer) in links)
    )
    return replace(scenario, options=options, plan=plan)


def _replaced(scenario: Scenario, index: int, fault: Fault) -> Scenario:
    plan = (*scenario.plan[:index], fault, *scenario.plan[index + 1 :])
    return replace(scenario, plan=tuple(sorted(plan, key=lambda each: each.at_us)))
