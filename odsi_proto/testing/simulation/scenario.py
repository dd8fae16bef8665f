"""A scenario: all that a run depends on, as a value and as JSON."""

import json
from collections.abc import Mapping, Set
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from odsi_proto.errors import ConfigError
from odsi_proto.limits import Limits
from odsi_proto.testing.rogue import DEVIATIONS, Part
from odsi_proto.testing.simulation.faults import (
    OF_CLIENTS,
    OF_LINKS,
    OF_STAGES,
    ROGUE_NODE,
    Fault,
    FaultKind,
    FaultPlan,
    draw_plan,
)
from odsi_proto.testing.simulation.options import CHUNKINGS, SimOptions

SEED_MAX = (1 << 63) - 1
"""Seeds are written into file names and other people's programs."""
FAULTS_MAX = 1_000
"""A hundred times what a seed draws."""
TIME_US_MAX = 10**12
"""Eleven days."""
NAME_CHARACTERS_MAX = 100

RANGES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "stages": (1, 16),
        "clients": (1, 16),
        "requests": (1, 64),
        "tokens": (1, 2_000),
        "prompt_positions": (1, 2_000),
        "chunk_positions": (1, 512),
        "delay_us": (0, 10_000_000),
        "jitter_us": (0, 10_000_000),
        "window_bytes": (1, 1 << 30),
        "stream_window_bytes": (1, 1 << 30),
        "compute_us": (0, 10_000_000),
        "row_width": (1, 4_096),
        "gap_us": (0, 100_000_000),
        "think_us": (0, 100_000_000),
        "first_token_us": (0, 1_000_000_000),
        "per_token_us": (0, 1_000_000_000),
        "total_us": (0, 1_000_000_000),
        "stage_budget_us": (0, 1_000_000_000),
        "queue_steps": (1, 1_000_000),
        "late_action": (1, 3),
        "valid_s": (0, 1_000_000),
        "clock_ppm": (0, 50_000),
        "wall_s": (0, 1_000_000),
        "lateness_us": (0, 1_000_000),
        "safety_us": (1, 1_000_000_000),
        "faults": (0, FAULTS_MAX),
    }
)
"""What each number of the options may be: everything beyond is a mistake or takes for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Same scenario and commit: same run, byte for byte."""

    seed: int
    """Decides whatever options and plan leave open: jitter, cuts, identities, tokens."""
    options: SimOptions
    plan: FaultPlan

    @classmethod
    def draw(cls, seed: int) -> "Scenario":
        """The scenario of a seed."""
        options = SimOptions.draw(seed)
        return cls(seed=seed, options=options, plan=draw_plan(seed, options))

    def to_json(self) -> str:
        """As text that :meth:`from_json` reads; fields at their defaults are written too."""
        options = {field.name: getattr(self.options, field.name) for field in fields(SimOptions)}
        options["fault_weights"] = {kind.value: weight for kind, weight in self.options.fault_weights}
        options["limits_set"] = dict(self.options.limits_set)
        plan = [
            {
                field.name: value.value if isinstance(value, FaultKind) else value
                for field in fields(Fault)
                if (value := getattr(fault, field.name)) or field.name == "at_us"
            }
            for fault in self.plan
        ]
        return json.dumps({"seed": self.seed, "options": options, "plan": plan}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Scenario":
        """Read a scenario; ``ConfigError`` names the field."""
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"not a scenario: {error}") from None
        where = _object(content, "scenario", {"seed", "options", "plan"})
        seed = _number(where["seed"], "seed", 0, SEED_MAX)
        options = _options(where["options"])
        listed = where["plan"]
        if not isinstance(listed, list) or len(listed) > FAULTS_MAX:
            raise ConfigError(f"field 'plan': expected a list of at most {FAULTS_MAX} faults")
        nodes = frozenset((*options.stage_names, *options.client_names, ROGUE_NODE))
        plan = [_fault(item, f"plan[{index}]", nodes) for index, item in enumerate(listed)]
        return cls(seed=seed, options=options, plan=tuple(sorted(plan, key=lambda fault: fault.at_us)))


def _options(value: Any) -> SimOptions:
    names = {field.name for field in fields(SimOptions)}
    given = _object(value, "options", names, optional=names)
    read: dict[str, Any] = {}
    for name, item in given.items():
        place = f"options.{name}"
        match name:
            case "chunking":
                if item not in CHUNKINGS:
                    raise ConfigError(f"field {place!r}: expected one of {', '.join(CHUNKINGS)}")
                read[name] = item
            case "orders_steps" | "late_bytes":
                if not isinstance(item, bool):
                    raise ConfigError(f"field {place!r}: expected true or false")
                read[name] = item
            case "fault_weights":
                weights = _object(item, place, {kind.value for kind in FaultKind}, optional=None)
                read[name] = tuple(
                    (FaultKind(kind), _number(weight, f"{place}.{kind}", 0, 1_000))
                    for kind, weight in weights.items()
                )
            case "limits_set":
                limits = _object(item, place, {field.name for field in fields(Limits)}, optional=None)
                read[name] = tuple(
                    (limit, _number(number, f"{place}.{limit}", 0, 1 << 40))
                    for limit, number in limits.items()
                )
            case "rogue":
                read[name] = _text(item, place)
            case _:
                read[name] = _number(item, place, *RANGES[name])
    return SimOptions(**read)


def _fault(value: Any, place: str, nodes: frozenset[str]) -> Fault:
    names = {field.name for field in fields(Fault)}
    given = _object(value, place, names, optional=names - {"at_us", "kind", "target"})
    kinds = {kind.value: kind for kind in FaultKind}
    if not isinstance(given["kind"], str) or given["kind"] not in kinds:
        raise ConfigError(f"field '{place}.kind': not a fault; the faults are {', '.join(kinds)}")
    kind, target, peer = kinds[given["kind"]], given["target"], given.get("peer", "")
    for name, node in (("target", target), ("peer", peer)):
        is_left_out = name == "peer" and kind not in OF_LINKS and node == ""
        if not isinstance(node, str) or (node not in nodes and not is_left_out):
            raise ConfigError(f"field '{place}.{name}': expected a node of this scenario")
    role = "stage-" if kind in OF_STAGES else "client-" if kind in OF_CLIENTS else ""
    if not target.startswith(role):
        raise ConfigError(f"field '{place}.target': {kind.value} happens to a {role[:-1]}")
    if kind is FaultKind.ROGUE:
        part = Part.STAGE if target.startswith("stage-") else Part.CLIENT
        named = DEVIATIONS.get(_text(given.get("name", ""), f"{place}.name"))
        if named is None or part not in named.parts or target.startswith("client-"):
            raise ConfigError(f"field '{place}.name': no deviation of {target} has this name")
    return Fault(
        at_us=_number(given["at_us"], f"{place}.at_us", 0, TIME_US_MAX),
        kind=kind,
        target=target,
        peer=peer,
        for_us=_number(given.get("for_us", 0), f"{place}.for_us", 0, TIME_US_MAX),
        amount=_number(given.get("amount", 0), f"{place}.amount", -TIME_US_MAX, TIME_US_MAX),
        name=_text(given.get("name", ""), f"{place}.name"),
    )


def _object(
    value: Any, place: str, known: set[str], *, optional: Set[str] | None = frozenset()
) -> dict[str, Any]:
    """An object with known keys; ``optional`` None: with any of them."""
    if not isinstance(value, dict):
        raise ConfigError(f"field {place!r}: expected an object")
    unknown = sorted(value.keys() - known)
    if unknown:
        raise ConfigError(f"field '{place}.{unknown[0][:NAME_CHARACTERS_MAX]}': nobody knows it")
    missing = sorted(known - (known if optional is None else optional) - value.keys())
    if missing:
        raise ConfigError(f"field '{place}.{missing[0]}' is missing")
    return value


def _number(value: Any, place: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"field {place!r}: expected a whole number from {low} to {high}")
    return value


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str) or len(value) > NAME_CHARACTERS_MAX:
        raise ConfigError(f"field {place!r}: expected a text of at most {NAME_CHARACTERS_MAX} characters")
    return value
