"""What a seed and the options of the command line make together."""

from dataclasses import dataclass, replace

from odsi_proto.errors import ConfigError
from odsi_proto.testing.simulation import FaultKind, Scenario, SimOptions, draw_plan

ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """What overrides the draw of a seed; None and the empty set leave it as it is."""

    stages: int | None = None
    tokens: int | None = None
    without: frozenset[FaultKind] = frozenset()

    @classmethod
    def of(cls, *, stages: int | None, tokens: int | None, without: tuple[str, ...]) -> "Drawing":
        """From the options; ``ConfigError`` for a fault that nobody knows."""
        return cls(stages=stages, tokens=tokens, without=frozenset(_kinds(without)))

    @property
    def arguments(self) -> tuple[str, ...]:
        """The options again, as one would type them."""
        named = [("--stages", self.stages), ("--tokens", self.tokens)]
        typed = [part for name, value in named if value is not None for part in (name, str(value))]
        names = [ALL] if len(self.without) == len(FaultKind) else sorted(kind.value for kind in self.without)
        return (*typed, *(part for name in names for part in ("--without", name)))

    def scenario(self, seed: int) -> Scenario:
        """The scenario of ``seed``: the same for everybody with the same options and commit."""
        if self == Drawing():
            return Scenario.draw(seed)
        options = SimOptions.draw(seed)
        if self.stages is not None:
            options = replace(options, stages=self.stages)
        if self.tokens is not None:
            options = replace(options, tokens=self.tokens)
        plan = tuple(fault for fault in draw_plan(seed, options) if fault.kind not in self.without)
        return Scenario(seed=seed, options=options, plan=plan)


def _kinds(names: tuple[str, ...]) -> tuple[FaultKind, ...]:
    if ALL in names:
        return tuple(FaultKind)
    known = {kind.value: kind for kind in FaultKind}
    for name in names:
        if name.replace("-", "_") not in known:
            raise ConfigError(f"--without {name}: not a fault; the faults are {', '.join(known)}, and {ALL}")
    return tuple(known[name.replace("-", "_")] for name in names)
