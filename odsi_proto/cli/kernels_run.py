"""Measures and shows; the half of ``odsi kernels`` that needs torch."""

from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.table import Table

from odsi_proto.cli.output import Output
from odsi_proto.kernels.capability import CapabilityReport, ProfileReport, Timing, report
from odsi_proto.kernels.model_path import default_model_path, open_source


def show(model: Path | None, output: Output, *, threads: int, fresh: bool) -> None:
    """One table for the machine and each profile, or one object."""
    with open_source(model or default_model_path()) as source, output.progress() as progress:
        found = report(source, threads=threads, fresh=fresh, progress=partial(progress, "measuring"))
    output.emit("kernels", asdict(found), human=_machine(found))
    for profile in found.profiles:
        output.table(_table(profile))


def _machine(found: CapabilityReport) -> str:
    device = found.device
    lines = [f"{device.processor}, {device.cores} cores, {device.memory_bytes / 2**30:.1f} GiB"]
    lines.append(f"instructions: {', '.join(device.instructions) or 'none of those that matter'}")
    for profile in found.profiles:
        why = f" ({profile.reason})" if profile.reason else ""
        exact = "a replay is exact" if profile.replay_exact else "a replay is close, not exact"
        lines.append(f"{profile.profile}: {profile.backend}{why}; {exact}")
    return "\n".join(lines)


def _table(profile: ProfileReport) -> Table:
    title = f"{profile.profile}, one layer; {profile.kv_bytes_per_position} bytes of state a position"
    table = Table(title=title, title_justify="left")
    for heading in ("step", "requests", "positions held", "ms", "rows/s"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    for timing in profile.timings:
        kind = "decode" if timing.rows == 1 else f"prefill {timing.rows}"
        table.add_row(
            kind, str(timing.batch), str(timing.context), f"{timing.layer_us / 1e3:.3f}", _rate(timing)
        )
    return table


def _rate(timing: Timing) -> str:
    return f"{timing.rows * timing.batch * 1e6 / max(timing.layer_us, 0.1):,.0f}"
