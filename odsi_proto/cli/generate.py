"""``odsi generate``: generate text, over nodes or in this process."""

import time
from dataclasses import replace
from pathlib import Path

import click

from odsi_proto.cli.deadline_options import LATE, DeadlineOptions, deadline_options
from odsi_proto.cli.delivery import Delivery, result_fields, summary, write_waterfall
from odsi_proto.cli.files import check_writable
from odsi_proto.cli.generation_options import GenerationOptions, generation_options
from odsi_proto.cli.lifeline import die_with_parent, run_until_signal
from odsi_proto.cli.logs import configure_logs
from odsi_proto.cli.output import Output, ProgressBar
from odsi_proto.cli.params import (
    CUTS,
    FILE,
    PATH,
    PEER,
    STAGES_MAX,
    examples,
    json_option,
    log_level_option,
    waterfall_option,
)
from odsi_proto.node.identity_files import ephemeral_signer, load_signer
from odsi_proto.routing.path import Peer
from odsi_proto.wire.identity import Signer


@click.command(
    epilog=examples(
        "odsi generate --local --prompt 'What is the capital of France?'",
        "odsi generate --local --stages 3 --profile f16 --raw --prompt 'Once upon a time'",
        "odsi generate --path 'ID@HOST:PORT[0-10],ID@HOST:PORT[10-30]' --prompt - < question.txt",
        "odsi generate --peer ID@HOST:PORT --peer ID@HOST:PORT --temperature 0.7 --top-p 0.9 --prompt Hello",
    )
)
@generation_options(prompt=None, max_tokens=256)
@deadline_options
@click.option("--path", type=PATH, help="The stages in order, each with its layers: ID@HOST:PORT[LO-HI],...")
@click.option("--peer", "peers", type=PEER, multiple=True, help="A node to find a path among. Repeatable.")
@click.option("--local", is_flag=True, help="Run the whole model in this process.")
@click.option(
    "--stages", type=click.IntRange(1, STAGES_MAX), help="With --local: cut into so many even stages."
)
@click.option("--cuts", type=CUTS, help="With --local: cut before these layers, as in 10,20.")
@click.option("--identity", type=FILE, help="Identity file.  [default: a new one, forgotten afterwards]")
@waterfall_option
@click.option("--supervised", is_flag=True, hidden=True, help="End with the program that started this one.")
@log_level_option("warning")
@json_option
def generate(
    options: GenerationOptions,
    first_token_ms: int | None,
    per_token_ms: int | None,
    total_ms: int | None,
    late: str,
    path: tuple[Peer, ...] | None,
    peers: tuple[Peer, ...],
    local: bool,
    stages: int | None,
    cuts: tuple[int, ...] | None,
    identity: Path | None,
    waterfall: Path | None,
    supervised: bool,
    log_level: str,
    as_json: bool,
) -> None:
    """Generate text, over nodes or in this process.

    The text goes to standard output as it comes. Choose where the layers run: a --path of nodes,
    nodes to find a path among (--peer), or this process (--local).
    """
    if supervised:
        die_with_parent()
    _check_place(path=path, peers=peers, local=local)
    if not local and (stages or cuts):
        raise click.UsageError("--stages and --cuts need --local")
    if stages and cuts:
        raise click.UsageError("--stages excludes --cuts")
    deadlines = DeadlineOptions(
        first_token_ms=first_token_ms, per_token_ms=per_token_ms, total_ms=total_ms, late_action=LATE[late]
    )
    if local and deadlines.is_given:
        raise click.UsageError("--local excludes --first-token-ms, --per-token-ms, --total-ms and --late")
    options = replace(options, deadlines=deadlines)
    if local and identity is not None:
        raise click.UsageError("--local excludes --identity")
    if waterfall is not None:
        if local:
            raise click.UsageError("--local excludes --waterfall: in one process nothing waits or travels")
        check_writable(waterfall)
    now_s = int(time.time())
    signer = ephemeral_signer(now_s=now_s) if identity is None else load_signer(identity, now_s=now_s)
    configure_logs(log_level, as_json=as_json)
    with Output(as_json=as_json) as output:
        delivery = Delivery(output)
        # What is wrong with the arguments has been said; only now wait two seconds for torch.
        with output.progress() as progress:
            if local:
                _generate_locally(options, delivery, progress, stages=stages, cuts=cuts)
            else:
                fixed = path is not None
                _generate_over(path or peers, options, signer, delivery, progress, fixed_path=fixed)
        if waterfall is not None:
            write_waterfall(waterfall, delivery, options, output)
        output.emit("result", {**result_fields(delivery.result), "seed": options.sampling.seed})
        seed = options.sampling.seed
        output.note(summary(delivery.result) + (f", seed {seed}" if seed is not None else ""))


def _generate_locally(
    options: GenerationOptions,
    delivery: Delivery,
    progress: ProgressBar,
    *,
    stages: int | None,
    cuts: tuple[int, ...] | None,
) -> None:
    from odsi_proto.cli.local_run import run_locally  # noqa: PLC0415

    for item in run_locally(options, stages=stages, cuts=cuts, progress=progress):
        delivery.take(item)


def _generate_over(
    peers: tuple[Peer, ...],
    options: GenerationOptions,
    signer: Signer,
    delivery: Delivery,
    progress: ProgressBar,
    *,
    fixed_path: bool,
) -> None:
    from odsi_proto.cli.client_run import run_over  # noqa: PLC0415

    run_until_signal(run_over(peers, options, signer, delivery, progress, fixed_path=fixed_path))


def _check_place(*, path: tuple[Peer, ...] | None, peers: tuple[Peer, ...], local: bool) -> None:
    chosen = [flag for flag, given in (("--path", path), ("--peer", peers), ("--local", local)) if given]
    if not chosen:
        raise click.UsageError("where to run is missing: give --path, --peer or --local")
    if len(chosen) > 1:
        raise click.UsageError(f"{chosen[0]} excludes {chosen[1]}")
