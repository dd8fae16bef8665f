"""SVG files of a run: distributions of latency, lateness against FIFO depth, the queue over time.

matplotlib draws them; it is in the extra ``bench-deadlines``.
"""

from collections.abc import Sequence
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

from bench.deadlines.matrix import Row
from bench.deadlines.measures import QUANTILES
from bench.deadlines.runner import QUEUE_PERIOD_NS
from bench.deadlines.scenario import Queue, Scenario
from odsi_proto.errors import ConfigError

HOW_TO_INSTALL = "plots need matplotlib: pip install -e '.[bench-deadlines]'"
QUEUE_SHOWN_S = 10.0


def load_pyplot() -> Any:
    """The plotting library, drawing into files; raises ``ConfigError`` where it is missing."""
    try:
        mpl: Any = import_module("matplotlib")
    except ImportError as error:
        raise ConfigError(HOW_TO_INSTALL) from error
    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "odsi", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3})
    return import_module("matplotlib.pyplot")


def write(folder: Path, rows: Sequence[Row], plt: Any) -> list[Path]:
    """All plots that the rows have something for."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, (scenario, found) in enumerate(groupby(rows, key=lambda row: row.scenario), 1):
        together = list(found)
        stem = f"{number:02}-{scenario.group}"
        written += [
            _latencies(plt, folder / f"{stem}-latency.svg", scenario, together),
            _queue(plt, folder / f"{stem}-queue.svg", scenario, together),
        ]
    for paths, found_rows in _by_depth(rows).items():
        if len({row.scenario.depth_ms for row in found_rows}) > 1:
            written.append(_depths(plt, folder / f"depth-{paths}.svg", found_rows))
    return written


def _latencies(plt: Any, path: Path, scenario: Scenario, rows: Sequence[Row]) -> Path:
    figure, axes = plt.subplots(figsize=(7.5, 4.2))
    shares = [step / QUANTILES for step in range(QUANTILES + 1)]
    for row in rows:
        shown = row.outcomes[0].latency_quantiles_ms
        if shown:
            axes.step(shown, shares, where="post", label=row.transport)
    axes.axvline(scenario.deadline_ms, color="black", linewidth=1, linestyle="--", label="deadline")
    axes.set(xscale="log", xlabel="latency of an activation, ms", ylabel="part of the activations")
    return _finish(plt, figure, axes, path, scenario.label())


def _queue(plt: Any, path: Path, scenario: Scenario, rows: Sequence[Row]) -> Path:
    """One below the other: lines that saw between 0 and the depth would hide each other."""
    figure, all_axes = plt.subplots(
        len(rows), figsize=(7.5, 0.6 + 0.9 * len(rows)), sharex=True, sharey=True, squeeze=False
    )
    count = int(QUEUE_SHOWN_S * 1e9 / QUEUE_PERIOD_NS)
    for (axes,), row in zip(all_axes, rows, strict=True):
        shown = row.outcomes[0].queue_ms[:count]
        axes.plot([index * QUEUE_PERIOD_NS / 1e9 for index in range(len(shown))], shown, linewidth=0.8)
        axes.set_ylabel(row.transport, rotation=0, ha="right", va="center", fontsize=8)
    all_axes[-1][0].set_xlabel("s")
    figure.suptitle(f"queue at the bottleneck, ms: {scenario.label()}", fontsize=8)
    return _save(plt, figure, path)


def _by_depth(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows that differ in FIFO depth alone, by what they have in common."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        scenario = row.scenario
        is_plain = not (scenario.loss or scenario.jitter_ms or scenario.change_at_s or scenario.competitors)
        if scenario.queue is Queue.FIFO and is_plain:
            where = f"-elsewhere{scenario.elsewhere}" if scenario.elsewhere else ""
            path = f"{scenario.rate_mbit:g}mbit-{scenario.rtt_ms:g}ms-bulk{scenario.bulk}{where}"
            found.setdefault(f"{path}-{scenario.duration_s:g}s", []).append(row)
    return found


def _depths(plt: Any, path: Path, rows: Sequence[Row]) -> Path:
    figure, axes = plt.subplots(figsize=(7.5, 4.2))
    for transport in dict.fromkeys(row.transport for row in rows):
        shown = sorted(
            (row.scenario.depth_ms, 100 * row.miss_rate) for row in rows if row.transport == transport
        )
        axes.plot([depth for depth, _ in shown], [late for _, late in shown], marker="o", label=transport)
    axes.set(xscale="log", xlabel="depth of the FIFO, ms", ylabel="late activations, %", ylim=(-3, 103))
    return _finish(plt, figure, axes, path, path.stem)


def _finish(plt: Any, figure: Any, axes: Any, path: Path, title: str) -> Path:
    axes.set_title(title, fontsize=8)
    axes.legend(fontsize=7)
    for labels in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        labels(lambda value, _: f"{value:g}")
    return _save(plt, figure, path)


def _save(plt: Any, figure: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
    return path
