"""``odsi top``: watch a running node."""

import os

import click

from odsi_proto.cli.lifeline import terminated_as_exception
from odsi_proto.cli.output import Output
from odsi_proto.cli.params import METRICS_ADDRESS, examples, json_option
from odsi_proto.cli.running import running_nodes
from odsi_proto.node.settings import Listen

INTERVAL_S = 1.0


@click.command(
    epilog=examples(
        "odsi top",
        "odsi top 127.0.0.1:9464 --interval 0.5",
        "odsi top 127.0.0.1:9464 --once",
        "odsi top 127.0.0.1:9464 --json --interval 10 >> node.jsonl",
    )
)
@click.argument("address", type=METRICS_ADDRESS, required=False)
@click.option("--once", is_flag=True, help="Show one frame and end.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3_600),
    help="Seconds between frames; with --json, print an object for each.  [default: 1]",
)
@json_option
def top(address: Listen | None, once: bool, interval: float | None, as_json: bool) -> None:
    """Watch a running node.

    Shows connections, what waits by slack, misses, requests, and the last minute of round trips and queue.

    ADDRESS is where the node serves metrics (`odsi node --metrics`), as HOST:PORT. Without it the one
    node of yours on this machine is taken. Ctrl-C ends it. Where the output is no terminal, frames are
    written one after the other.
    """
    where = address or _only_node()
    output = Output(as_json=as_json)
    is_once = once or (as_json and interval is None)
    from odsi_proto.cli import top_run  # noqa: PLC0415  # rich takes 70 ms to import

    with terminated_as_exception():
        if is_once:
            top_run.show_once(where, output)
        else:
            top_run.watch(where, output, interval_s=interval or INTERVAL_S)


def _only_node() -> Listen:
    nodes = running_nodes(os.environ)
    if not nodes:
        raise click.UsageError(
            "no node of yours with metrics runs here: start one with `odsi node --metrics 127.0.0.1:0`, "
            "or give the ADDRESS of one"
        )
    if len(nodes) > 1:
        some = ", ".join(f"{node.address} (layers {node.layers})" for node in nodes[:16])
        raise click.UsageError(f"{len(nodes)} nodes run here, give the ADDRESS of one: {some}")
    return Listen.parse(nodes[0].address)
