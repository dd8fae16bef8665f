"""``odsi node``: run an execution node."""

import importlib
import os
import sys
import time
from pathlib import Path

import click

from odsi_proto.cli.lifeline import die_with_parent
from odsi_proto.cli.logs import configure_logs
from odsi_proto.cli.output import Output
from odsi_proto.cli.params import (
    FILE,
    LAYERS,
    LISTEN,
    PEER,
    examples,
    json_option,
    log_level_option,
    model_option,
)
from odsi_proto.kernels.model_path import default_model_path
from odsi_proto.node.config import CONGESTION
from odsi_proto.node.identity_files import default_identity_path, ephemeral_signer, load_signer
from odsi_proto.node.settings import (
    KV_MIB_MAX,
    PROFILES,
    THREADS_MAX,
    UPLINK_MBIT_MAX,
    Listen,
    NodeSettings,
)
from odsi_proto.routing.path import Peer
from odsi_proto.units import LayerRange
from odsi_proto.wire.identity import Signer


@click.command(
    epilog=examples(
        "odsi node --layers 0-10",
        "odsi node --layers 0-10 --listen 192.0.2.7:4433 --peer 'ID@192.0.2.8:4433[10-20]'",
        "odsi node --config node-a.toml --threads 2 --metrics 127.0.0.1:9464",
    )
)
@model_option
@click.option(
    "--manifest", type=FILE, help="Manifest of the model. Default: the one beside it, or one made from it."
)
@click.option("--layers", type=LAYERS, help="Layers to run: LO up to, not including, HI. Required.")
@click.option(
    "--listen", type=LISTEN, help="UDP address; port 0 lets the system choose.  [default: 127.0.0.1:0]"
)
@click.option("--identity", type=FILE, help="Identity file. Default: ~/.config/odsi/identity.json.")
@click.option("--ephemeral", is_flag=True, help="Use a new identity that is forgotten afterwards.")
@click.option("--peer", "peers", type=PEER, multiple=True, help="A node to stay connected to. Repeatable.")
@click.option(
    "--profile",
    type=click.Choice(list(PROFILES)),
    help="How layers are computed: in binary32, or with packed weights.  [default: exact]",
)
@click.option("--threads", type=click.IntRange(1, THREADS_MAX), help="Compute threads.  [default: 1]")
@click.option(
    "--kv-mib",
    type=click.IntRange(1, KV_MIB_MAX),
    help="Memory for the state of all requests, in MiB.  [default: 1024]",
)
@click.option(
    "--metrics",
    type=LISTEN,
    help="Serve /metrics and /status over HTTP there; port 0 lets the system choose.  [default: off]",
)
@click.option(
    "--congestion",
    type=click.Choice(CONGESTION),
    help="Congestion controller.  [default: reno]",
)
@click.option(
    "--uplink-mbit",
    type=click.IntRange(1, UPLINK_MBIT_MAX),
    help="Mbit/s that leave at most. Default: learned, and only bulk is slowed down.",
)
@click.option("--config", type=FILE, help="TOML file with the same names; flags win.")
@click.option(
    "--supervised",
    is_flag=True,
    hidden=True,
    help="Read settings from standard input up to an empty line; end when it ends.",
)
@log_level_option("info")
@json_option
def node(
    model: Path | None,
    manifest: Path | None,
    layers: LayerRange | None,
    listen: Listen | None,
    identity: Path | None,
    ephemeral: bool,
    peers: tuple[Peer, ...],
    profile: str | None,
    threads: int | None,
    kv_mib: int | None,
    metrics: Listen | None,
    congestion: str | None,
    uplink_mbit: int | None,
    config: Path | None,
    supervised: bool,
    log_level: str,
    as_json: bool,
) -> None:
    """Run an execution node.

    Once it serves it prints how others reach it: ID@HOST:PORT[LO-HI]. It runs until Ctrl-C or
    SIGTERM and then takes leave of its peers.
    """
    if ephemeral and identity is not None:
        raise click.UsageError("--ephemeral excludes --identity")
    settings = NodeSettings(
        model=model,
        manifest=manifest,
        layers=layers,
        listen=listen,
        identity=identity,
        peers=peers or None,
        threads=threads,
        kv_mib=kv_mib,
        metrics=metrics,
        congestion=congestion,
        uplink_mbit=uplink_mbit,
        profile=None if profile is None else PROFILES[profile],
    )
    if config is not None:
        settings = settings.over(NodeSettings.read(config))
    if supervised:
        settings = settings.over(_settings_from_parent())
    signer = _signer(settings, ephemeral=ephemeral)
    node_config = settings.config(signer=signer, default_model=default_model_path)
    configure_logs(log_level, as_json=as_json)
    output = Output(as_json=as_json)
    with output.progress() as progress:
        # What is wrong with the arguments has been said; only now wait two seconds for torch.
        from odsi_proto.cli import node_run  # noqa: PLC0415

        node_run.serve(node_config, output, progress, supervised=supervised)


def _signer(settings: NodeSettings, *, ephemeral: bool) -> Signer:
    now_s = int(time.time())
    if ephemeral:
        return ephemeral_signer(now_s=now_s)
    return load_signer(settings.identity or default_identity_path(os.environ), now_s=now_s)


def _settings_from_parent() -> NodeSettings:
    """Settings that the program which started this one sends when it knows them, or nothing."""
    die_with_parent()
    importlib.import_module("odsi_proto.cli.node_run")  # while the parent finds out what to send
    document = ""
    for line in sys.stdin:
        if line == "\n":
            break
        document += line
    return NodeSettings.parse(document, source=Path("standard input"))
