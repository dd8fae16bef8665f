"""What was measured, for people, for programs and as pictures."""

import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bench.kernels.nodes import Breakdown
from bench.kernels.plot import Bar, bars
from bench.kernels.rounds import Accuracy, Group, Series
from bench.provenance import commit
from odsi_proto.kernels.capability import find_device

FORMAT = 1
NAME_COLUMNS = 36


def machine() -> dict[str, Any]:
    """Where and when, and how busy it is."""
    device = find_device()
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": device.processor,
        "cores": device.cores,
        "instructions": list(device.instructions),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "commit": commit(),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def lines(measured: Group | Breakdown) -> Iterator[str]:
    """A table."""
    yield ""
    yield measured.title
    if isinstance(measured, Breakdown):
        for name, part_ms in measured.parts_ms.items():
            yield f"  {name:<{NAME_COLUMNS}}{part_ms:>9.2f}"
        yield f"  {'for each hop':<{NAME_COLUMNS}}{measured.hop_ms:>9.2f}"
        yield f"  {'together':<{NAME_COLUMNS}}{sum(measured.parts_ms.values()):>9.2f}"
        yield f"  {'bytes of a token over all hops':<{NAME_COLUMNS}}{measured.bytes_per_token:>9}"
        return
    heads = f"{'median':>9}{'least':>9}{'most':>9}{'ratio':>9}{'least':>7}{'most':>7}"
    yield f"  {'':<{NAME_COLUMNS}}{heads}{'KL':>11}{'KL max':>11}{'top-1':>8}"
    for series in measured.series:
        if series.why_not:
            yield f"  {series.name:<{NAME_COLUMNS}}  not measured: {series.why_not}"
            continue
        found = series.samples
        speeds = f"{series.median:>9.1f}{min(found):>9.1f}{max(found):>9.1f}"
        yield f"  {series.name:<{NAME_COLUMNS}}{speeds}{_ratio(series, measured)}{_accuracy(series.accuracy)}"
    yield f"  ratio: to {measured.baseline}, of the same round; median, least and most of the rounds"


def as_json(
    before: dict[str, Any], measured: Sequence[Group | Breakdown], facts: dict[str, Any]
) -> dict[str, Any]:
    """Everything, every sample included."""
    return {
        "format": FORMAT,
        **facts,
        "machine": before,
        "load_after": [round(load, 2) for load in os.getloadavg()],
        "groups": [_group(each) for each in measured if isinstance(each, Group)],
        "breakdowns": [asdict(each) for each in measured if isinstance(each, Breakdown)],
    }


def write_plots(folder: Path, measured: Sequence[Group | Breakdown]) -> None:
    """An SVG file for each table."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in measured:
        if isinstance(each, Breakdown):
            shown = [Bar(name, (part, part, part)) for name, part in each.parts_ms.items()]
        else:
            shown = [
                Bar(row.name, (min(row.samples), row.median, max(row.samples)))
                for row in each.series
                if not row.why_not
            ]
        if shown:
            (folder / f"{each.key}.svg").write_text(bars(each.title, shown), encoding="utf-8")


def _ratio(series: Series, group: Group) -> str:
    ratios = series.ratios(group.base)
    if not ratios:
        return f"{'-':>9}{'':>14}"
    return f"{statistics.median(ratios):>9.2f}{min(ratios):>7.2f}{max(ratios):>7.2f}"


def _accuracy(accuracy: Accuracy | None) -> str:
    if accuracy is None:
        return f"{'-':>11}{'-':>11}{'-':>8}"
    return f"{accuracy.kl_mean:>11.1e}{accuracy.kl_max:>11.1e}{accuracy.top1:>8.1%}"


def _group(group: Group) -> dict[str, Any]:
    return {
        "key": group.key,
        "title": group.title,
        "baseline": group.baseline,
        "loads": list(group.loads),
        "series": [
            {
                **asdict(series),
                "median": None if series.why_not else series.median,
                "ratios": series.ratios(group.base),
            }
            for series in group.series
        ],
    }
