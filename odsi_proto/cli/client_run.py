"""Generates over nodes; the half of ``odsi generate`` and ``odsi demo`` that needs the network."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from odsi_proto.cli.deadline_options import DeadlineOptions
from odsi_proto.cli.delivery import Delivery
from odsi_proto.cli.generation_options import PROFILE_DEFAULT, GenerationOptions
from odsi_proto.cli.output import ProgressBar
from odsi_proto.kernels.hyperparameters import read_config
from odsi_proto.kernels.manifest import build_manifest, sidecar_path
from odsi_proto.kernels.model_path import default_model_path, open_source
from odsi_proto.kernels.sampling import Sampling
from odsi_proto.node.client import FIRST_TOKEN_US, PER_TOKEN_US, Client
from odsi_proto.node.config import ClientConfig
from odsi_proto.node.settings import PROFILES as NODE_PROFILES
from odsi_proto.routing.budget import Targets
from odsi_proto.routing.path import Peer, even_cuts
from odsi_proto.units import LayerRange, Micros
from odsi_proto.wire.identity import Signer
from odsi_proto.wire.manifest import to_sidecar


async def run_over(
    peers: Sequence[Peer],
    options: GenerationOptions,
    signer: Signer,
    delivery: Delivery,
    progress: ProgressBar,
    *,
    fixed_path: bool,
) -> None:
    """Generate over ``peers``: in their order, or along a path found among them."""
    config = client_config(options, signer)
    async with Client(config, peers, fixed_path=fixed_path, progress=progress) as client:
        progress.close()
        await deliver(client, options, delivery)


def client_config(
    options: GenerationOptions, signer: Signer, *, manifest: Path | None = None
) -> ClientConfig:
    """What a client that generates ``options`` is told."""
    chosen = options.chosen(PROFILE_DEFAULT)
    return ClientConfig(
        model=options.model or default_model_path(),
        signer=signer,
        codec=chosen.codec,
        profile=NODE_PROFILES[chosen.computes],
        manifest=manifest,
        threads=options.threads,
    )


async def deliver(client: Client, options: GenerationOptions, delivery: Delivery) -> None:
    """Generate what ``options`` say with a connected client."""
    how = options.sampling
    # In a thread: the model's chat template may take seconds, and connections want to be kept alive.
    prompt_ids = await asyncio.to_thread(client.prompt_tokens, options.prompt, chat=options.chat)
    sampling = Sampling(temperature=how.temperature, top_p=how.top_p, seed=how.seed)
    async for item in client.generate(
        prompt_ids,
        max_tokens=options.max_tokens,
        sampling=sampling,
        targets=_targets(options.deadlines),
        late_action=options.deadlines.late_action,
    ):
        delivery.take(item)


def _targets(asked: DeadlineOptions) -> Targets | None:
    """The deadlines asked for, the others ample; None if there are none."""
    given = (asked.first_token_ms, asked.per_token_ms, asked.total_ms)
    if given == (None, None, None):
        return None
    first_us, per_us, total_us = (None if ms is None else Micros(1_000 * ms) for ms in given)
    return Targets(
        first_token_us=FIRST_TOKEN_US if first_us is None else first_us,
        per_token_us=PER_TOKEN_US if per_us is None else per_us,
        total_us=total_us,
    )


def prepare(model: Path, stages_count: int, directory: Path) -> tuple[tuple[LayerRange, ...], Path]:
    """The layers of each stage, and a manifest: that beside the model, or one made in ``directory``.

    So the whole file is hashed once at most, and each stage checks only its own tensors.
    """
    with open_source(model) as source:
        cuts = even_cuts(read_config(source).layers_count, stages_count)
        manifest = sidecar_path(source.path)
        if not manifest.exists():
            manifest = directory / "manifest.json"
            manifest.write_text(to_sidecar(build_manifest(source)), encoding="utf-8")
    return cuts, manifest
