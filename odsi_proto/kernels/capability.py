"""What this machine computes, and how fast: measured once for a model, a profile and a machine.

The times are of a few layers that are like all others, by the clock, with nothing else asked of the
machine; a planner wants them for a layer and a step, an operator to know what a node is good for.
"""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from odsi_proto import __version__
from odsi_proto.kernels import native
from odsi_proto.kernels.engine import StageEngine, StageStep
from odsi_proto.kernels.hyperparameters import read_config
from odsi_proto.kernels.manifest import Progress, no_progress
from odsi_proto.kernels.select import BackendKind
from odsi_proto.kernels.source import ModelSource
from odsi_proto.units import LayerRange, Micros
from odsi_proto.wire.tensor import NumericProfile

LAYERS_MEASURED = 2
BATCHES = (1, 4, 16)
CONTEXTS = (64, 1_024)
PREFILLS = (16, 128)
MEASURE_S = 0.25
"""For each figure, after one run that is not counted."""

FORMAT = 1
"""Of the cached report: one of another is measured anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What computes."""

    processor: str
    cores: int
    memory_bytes: int
    instructions: tuple[str, ...]
    """Of those that decide which backend runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long one layer takes for a step of each of ``batch`` requests."""

    rows: int
    """Positions in each step: 1 is decode, more is prefill."""
    batch: int
    context: int
    """Positions that each request held before."""
    layer_us: float
    """Median; of the whole batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileReport:
    """One numeric profile on this machine."""

    profile: str
    number: int
    """On the wire."""
    backend: str
    reason: str
    """Why not something faster; empty if nothing is."""
    replay_exact: bool
    kv_bytes_per_position: int
    """For one layer."""
    timings: tuple[Timing, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CapabilityReport:
    """Everything that ``odsi kernels`` says."""

    fingerprint: str
    """Of machine, software and model: a report is good for as long as it stays the same."""
    model: str
    device: Device
    profiles: tuple[ProfileReport, ...]


def report(
    source: ModelSource, *, threads: int, fresh: bool = False, progress: Progress = no_progress
) -> CapabilityReport:
    """The report for a model: the cached one, or measured now and cached; raises ``ModelError``."""
    device = find_device()
    fingerprint = _fingerprint(source, device, threads)
    cached = cache_folder() / f"kernels-{fingerprint[:32]}.json"
    if not fresh:
        found = _read(cached)
        if found is not None and found.fingerprint == fingerprint:
            return found
    profiles = []
    for done, profile in enumerate(NumericProfile):
        progress(done, len(NumericProfile))
        profiles.append(measure(source, profile, threads=threads))
    made = CapabilityReport(
        fingerprint=fingerprint, model=source.path.name, device=device, profiles=tuple(profiles)
    )
    _write(cached, made)
    return made


def measure(
    source: ModelSource, profile: NumericProfile, *, threads: int, backend: BackendKind | None = None
) -> ProfileReport:
    """Load a few layers in a profile and time them."""
    config = read_config(source)
    layers = LayerRange(0, min(LAYERS_MEASURED, config.layers_count))
    largest = max(BATCHES) * (max(CONTEXTS) + 64)
    engine = StageEngine.load(
        source,
        None,
        layers,
        profile=profile,
        backend=backend,
        threads=threads,
        kv_bytes_max=2 * largest * len(layers) * config.kv_bytes_per_layer,
    )
    shapes = [(1, batch, context) for context in CONTEXTS for batch in BATCHES]
    shapes += [(rows, 1, 0) for rows in PREFILLS]
    timings = tuple(
        Timing(rows=rows, batch=batch, context=context, layer_us=_time(engine, rows, batch, context))
        for rows, batch, context in shapes
        if context + rows <= config.context
    )
    return ProfileReport(
        profile=profile.name,
        number=int(profile),
        backend=engine.backend.name,
        reason=engine.choice.reason,
        replay_exact=engine.backend.stability.replay_exact,
        kv_bytes_per_position=engine.kv_bytes(16) // 16 // len(layers),
        timings=timings,
    )


def find_device() -> Device:
    """This machine."""
    known = native.INSTRUCTIONS
    flags: set[str] = set()
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            processor = value.strip()
        elif name.strip() == "flags":
            flags = set(value.split())
    return Device(
        processor=processor,
        cores=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        instructions=tuple(name for name in known if name in flags),
    )


def cache_folder() -> Path:
    """Where reports are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "odsi"


def _time(engine: StageEngine, rows: int, batch: int, context: int) -> float:
    """Microseconds of one layer for one batch of steps."""
    width = engine.config.width
    requests = [bytes([index]) * 16 for index in range(batch)]
    generator = torch.Generator().manual_seed(0)
    for request in requests:
        engine.open(request, context + rows)
        if context:
            engine.run(request, 0, torch.randn(context, width, generator=generator))
    steps = [
        StageStep(request, context, torch.randn(rows, width, generator=generator)) for request in requests
    ]

    def once() -> None:
        engine.run_batch([StageStep(step.request_id, context, step.rows.clone()) for step in steps])
        for request in requests:
            engine.roll_back(request, context)

    median_us = _median_us(once)
    for request in requests:
        engine.close(request)
    return round(median_us / len(engine.layers), 1)


def _median_us(work: Callable[[], None]) -> float:
    work()
    taken: list[float] = []
    end = time.perf_counter() + MEASURE_S
    while time.perf_counter() < end or not taken:
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return Micros(round(sorted(taken)[len(taken) // 2] * 1e6))


def _fingerprint(source: ModelSource, device: Device, threads: int) -> str:
    library = hashlib.sha256(native.LIBRARY.read_bytes()).hexdigest() if native.LIBRARY.exists() else ""
    model = hashlib.sha256(source.metadata).hexdigest()
    tensors = [(info.name, info.type.name, info.shape) for info in source.tensors.values()]
    parts = (FORMAT, __version__, asdict(device), torch.__version__, library, threads, model, tensors)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _read(path: Path) -> CapabilityReport | None:
    """A cached report; None if there is none that can be read: it is measured again."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return CapabilityReport(
            fingerprint=value["fingerprint"],
            model=value["model"],
            device=Device(**{**value["device"], "instructions": tuple(value["device"]["instructions"])}),
            profiles=tuple(
                ProfileReport(**{**each, "timings": tuple(Timing(**timing) for timing in each["timings"])})
                for each in value["profiles"]
            ),
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _write(path: Path, made: CapabilityReport) -> None:
    """Keep a report where that is possible; where it is not, it is measured again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(asdict(made)), encoding="utf-8")
        temporary.replace(path)
    except OSError:
        return
