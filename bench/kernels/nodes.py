"""Node processes over QUIC beside one process of the same profile: ``odsi demo --json``, run by run.

A run starts its nodes anew, generates the same greedy text over them and in one process, and says for
each stage where the time of a token went.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.kernels.rounds import Unavailable
from odsi_proto.cli.stage_processes import child_environment

STAGES = 3
PROMPT = "Once upon a time, in a village by the river, there lived"
"""Raw, so that no template and no end token cuts it short: the reference has 128 tokens for it."""

RUN_S_MAX = 300


@dataclass(frozen=True, slots=True)
class Run:
    """One demonstration; the result event of docs/json.md."""

    event: dict[str, Any]

    @property
    def over_nodes(self) -> float:
        """Tokens per second over the nodes."""
        return float(self.event["tokens_per_second"])

    @property
    def in_one_process(self) -> float:
        """Tokens per second of the same engines, cuts and codec in one process."""
        return float(self.event["single_process"]["tokens_per_second"])

    def parts(self) -> dict[str, float]:
        """Where the milliseconds of a token went, in order; they add up to the time between two tokens."""
        client, parts_us = self.event["client"], {}
        parts_us["client: embed"] = client["embed_us"]
        for index, stage in enumerate(self.event["stages"]):
            parts_us[f"stage {index}: compute"] = stage["compute_us"]
            parts_us[f"stage {index}: queue"] = stage["queue_us"]
        parts_us["client: head"] = client["head_us"]
        parts_us["client: sample"] = client["sample_us"]
        parts_us["hops: everything else"] = 1e6 / self.over_nodes - sum(parts_us.values())
        return {name: part_us / 1e3 for name, part_us in parts_us.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakdown:
    """Medians over the runs of one profile."""

    key: str
    title: str
    parts_ms: dict[str, float]
    hop_ms: float
    """The last part, for each of the hops: to send, to carry, to wake up and to receive."""
    bytes_per_token: int
    """What all hops carry for one token."""


def demonstrate(model: Path, profile: str, tokens: int) -> Run:
    """One run; raises ``Unavailable`` with the program's own error."""
    command = [sys.executable, "-m", "odsi_proto.cli", "demo", "--json", f"--stages={STAGES}"]
    options = [f"--model={model}", "--raw", f"--prompt={PROMPT}", f"--profile={profile}"]
    try:
        done = subprocess.run(
            [*command, *options, f"--max-tokens={tokens}"],
            capture_output=True,
            text=True,
            timeout=RUN_S_MAX,
            check=False,
            env=child_environment(),
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"odsi demo took longer than {RUN_S_MAX} s") from error
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    last = lines[-1] if lines else f"odsi demo ended with {done.returncode}"
    if done.returncode:
        raise Unavailable(last)
    run = Run(json.loads(last))
    if min(run.over_nodes, run.in_one_process) <= 0:
        raise Unavailable("odsi demo generated fewer than two tokens")
    if not run.event["single_process"]["same_tokens"]:
        raise Unavailable("the nodes' tokens are not those of one process")
    return run


def breakdown(profile: str, runs: Sequence[Run]) -> Breakdown:
    """Part by part over the runs."""
    all_parts = [run.parts() for run in runs]
    parts_ms = {name: statistics.median(parts[name] for parts in all_parts) for name in all_parts[0]}
    *_, rest_ms = parts_ms.values()
    event = runs[0].event
    carried = event["client"]["bytes_per_token"] + sum(stage["bytes_per_token"] for stage in event["stages"])
    return Breakdown(
        key=f"hops-{profile}",
        title=f"{STAGES} nodes, {profile}: where the time of one token goes, ms",
        parts_ms=parts_ms,
        hop_ms=rest_ms / (STAGES + 1),
        bytes_per_token=carried,
    )
