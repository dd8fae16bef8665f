"""``odsi kernels``: what this machine computes, and how fast."""

from pathlib import Path

import click

from odsi_proto.cli.output import Output
from odsi_proto.cli.params import examples, json_option, model_option, threads_option


@click.command(epilog=examples("odsi kernels", "odsi kernels --model Qwen2.5-0.5B/ --fresh --json"))
@model_option
@threads_option
@click.option("--fresh", is_flag=True, help="Measure again, though this machine was measured before.")
@json_option
def kernels(model: Path | None, threads: int, fresh: bool, as_json: bool) -> None:
    """Show what this machine computes, and how fast.

    For each numeric profile: what computes it, and how long a layer takes.

    Measured with layers of the model, in a few seconds, and remembered for as long as machine,
    software and model stay the same.
    """
    from odsi_proto.cli import kernels_run  # noqa: PLC0415  # brings torch

    kernels_run.show(model, Output(as_json=as_json), threads=threads, fresh=fresh)
