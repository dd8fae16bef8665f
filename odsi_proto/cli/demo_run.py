"""The course of a demonstration: stages, a probe, the text, and the same again in one process.

The stages import torch while this process does, so it imports what needs torch late.
"""

import asyncio
import json
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from odsi_proto.cli.delivery import Delivery, drawn, result_fields, result_table, summary
from odsi_proto.cli.generation_options import PROFILE_DEFAULT, GenerationOptions
from odsi_proto.cli.output import Output
from odsi_proto.cli.stage_processes import StageProcess, StageSettings, child_environment, stage_processes
from odsi_proto.errors import OdsiError, PeerError, RequestFailedError
from odsi_proto.kernels.hyperparameters import read_config
from odsi_proto.kernels.model_path import default_model_path, open_source
from odsi_proto.node.identity_files import ephemeral_signer
from odsi_proto.node.result import GenerationResult
from odsi_proto.routing.path import Peer, even_cuts

T = TypeVar("T")

PROBE_S_MAX = 20.0
"""One token through all stages takes a tenth of a second; a swapping machine still makes this."""

CAUSE_S_MAX = 0.2
"""A stage that died may be reported by its neighbour before the system reports its end."""

SINGLE_PROCESS_S_MAX = 60.0
"""To start and to generate in one process, beyond the time that the stages took."""


async def demonstrate(
    options: GenerationOptions, output: Output, *, stages_count: int, waterfall: Path | None
) -> None:
    """Show the whole; every process started here has ended when this returns or raises."""
    model = options.model or default_model_path()
    _check_cuts(model, stages_count)
    output.note(f"starting {stages_count} nodes, each a process of its own")
    started_s = time.monotonic()
    delivery = Delivery(output)
    with drawn(waterfall, delivery, options, output):
        async with stage_processes(stages_count) as stages:
            await _watched(stages, _generate(stages, model, options, delivery))
    result = delivery.result
    output.note("the same engine in one process, for comparison")
    time_s_max = SINGLE_PROCESS_S_MAX + time.monotonic() - started_s
    cuts = [stage.layers.first for stage in result.stages[1:]]
    single = await _single_process(model, cuts, options, time_s_max)
    _conclude(result, single, options, output)


def _check_cuts(model: Path, stages_count: int) -> None:
    """Before any process is started: that the model has as many layers as there are stages."""
    with open_source(model) as source:
        layers_count = read_config(source).layers_count
    if stages_count > layers_count:
        even_cuts(layers_count, stages_count)


async def _generate(
    stages: Sequence[StageProcess], model: Path, options: GenerationOptions, delivery: Delivery
) -> None:
    from odsi_proto.cli import client_run  # noqa: PLC0415
    from odsi_proto.node.client import Client  # noqa: PLC0415

    output = delivery.output
    with tempfile.TemporaryDirectory(prefix="odsi-demo-") as directory:
        cuts, manifest = client_run.prepare(model, len(stages), Path(directory))
        path: list[Peer] = []
        for stage, layers in zip(reversed(stages), reversed(cuts), strict=True):
            # The last stage first, so that each can dial those after it.
            settings = StageSettings(
                model=model,
                manifest=manifest,
                layers=layers,
                peers=tuple(path),
                threads=options.threads,
                profile=options.chosen(PROFILE_DEFAULT).computes,
            )
            path.insert(0, await _serve(stage, settings, output))
        signer = ephemeral_signer(now_s=int(time.time()))
        config = client_run.client_config(options, signer, manifest=manifest)
        async with Client(config, path, fixed_path=True) as client:
            probe_us = await _probe(client.probe())
            output.emit("probe", {"round_trip_us": probe_us})
            output.note(f"a probe went through all of them in {probe_us / 1000:.1f} ms")
            await client_run.deliver(client, options, delivery)


async def _probe(probe: Coroutine[Any, Any, None]) -> int:
    started_s = time.monotonic()
    try:
        async with asyncio.timeout(PROBE_S_MAX):
            await probe
    except TimeoutError as error:
        raise RequestFailedError(f"the probe was not back within {PROBE_S_MAX:.0f} s") from error
    return round((time.monotonic() - started_s) * 1e6)


async def _serve(stage: StageProcess, settings: StageSettings, output: Output) -> Peer:
    ready = await stage.serve(settings)
    output.emit("node_ready", {**ready, "event": "node_ready", "pid": stage.pid})
    output.note(f"{stage.name} listens on {ready['host']}:{ready['port']}")
    return Peer.parse(str(ready["peer"]))


async def _watched(stages: Sequence[StageProcess], work: Coroutine[Any, Any, T]) -> T:
    """Do ``work`` unless a stage ends before it does."""
    task = asyncio.create_task(work)
    endings = [asyncio.create_task(stage.ended()) for stage in stages]
    try:
        await asyncio.wait({task, *endings}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise next(ending.result() for ending in endings if ending.done())
        error = task.exception()
        if error is None:
            return task.result()
        raise await _cause(error, stages, endings)
    finally:
        for other in (task, *endings):
            other.cancel()
        await asyncio.gather(task, *endings, return_exceptions=True)


async def _cause(
    error: BaseException, stages: Sequence[StageProcess], endings: Sequence[asyncio.Task[OdsiError]]
) -> BaseException:
    """What is behind ``error``: a stage that was stopped or has ended, else nothing we know of."""
    for stage in stages:
        if stage.is_stopped():
            return PeerError(f"{stage.name} is stopped: {error}")
    await asyncio.wait(endings, timeout=CAUSE_S_MAX, return_when=asyncio.FIRST_COMPLETED)
    return next((ending.result() for ending in endings if ending.done()), error)


async def _single_process(
    model: Path, cuts: Sequence[int], options: GenerationOptions, time_s_max: float
) -> dict[str, object]:
    """The result object of the same generation in one process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "odsi_proto.cli"),
        *("generate", "--local", "--supervised", "--json", "--prompt=-", f"--model={model}"),
        *([f"--cuts={','.join(map(str, cuts))}"] if cuts else []),
        *("--chat" if options.chat else "--raw", f"--max-tokens={options.max_tokens}"),
        *(f"--profile={options.profile or PROFILE_DEFAULT}", f"--threads={options.threads}"),
        *options.sampling.flags(),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=child_environment(),
        process_group=0,
    )
    try:
        async with asyncio.timeout(time_s_max):
            output, _ = await process.communicate(f"{options.prompt}\n".encode())
    except TimeoutError as error:
        raise RequestFailedError(f"the single process took longer than {time_s_max:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    last: dict[str, object] = json.loads(output.splitlines()[-1]) if output else {}
    if process.returncode:
        raise RequestFailedError(f"the single process failed: {last.get('message', process.returncode)}")
    return last


def _conclude(
    result: GenerationResult, single: Mapping[str, Any], options: GenerationOptions, output: Output
) -> None:
    same = single["token_ids"] == list(result.token_ids)
    compared = {key: single[key] for key in ("tokens_per_second", "token_ids", "text", "first_token_us")}
    fields = {
        **result_fields(result),
        "seed": options.sampling.seed,
        "single_process": {**compared, "same_tokens": same},
    }
    share = result.tokens_per_second / max(single["tokens_per_second"], 1e-9)
    human = (
        f"{len(result.stages)} processes: {summary(result)}\n"
        f"one process: {single['tokens_per_second']:.1f} tokens/s, so the stages keep {share:.0%}; "
        f"its tokens are {'the same' if same else 'NOT the same'}"
    )
    output.table(result_table(result))
    output.emit("result", fields, human=human)
