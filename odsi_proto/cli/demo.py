"""``odsi demo``: run nodes on this machine and let them generate."""

from pathlib import Path

import click

from odsi_proto.cli.files import check_writable
from odsi_proto.cli.generation_options import GenerationOptions, generation_options
from odsi_proto.cli.lifeline import run_until_signal
from odsi_proto.cli.output import Output
from odsi_proto.cli.params import STAGES_MAX, examples, json_option, waterfall_option

PROMPT = "What is a computer network? Answer in one sentence."
MAX_TOKENS = 48


@click.command(
    epilog=examples(
        "odsi demo",
        "odsi demo --stages 5 --profile exact --prompt 'What is the capital of France?'",
        "odsi demo --waterfall demo.html",
        "odsi demo --raw --prompt 'Once upon a time' --max-tokens 20 --json",
    )
)
@click.option(
    "--stages",
    type=click.IntRange(1, STAGES_MAX),
    default=3,
    show_default=True,
    help="Processes to cut the model into.",
)
@generation_options(prompt=PROMPT, max_tokens=MAX_TOKENS)
@waterfall_option
@json_option
def demo(stages: int, options: GenerationOptions, waterfall: Path | None, as_json: bool) -> None:
    """Run nodes on this machine and let them generate.

    The model is cut into even stages, each a process of its own that listens on a port the system
    chooses. A client, here, sends one probe through all of them and then generates. Where the time
    went is shown beside the same engine in a single process.
    """
    if waterfall is not None:
        check_writable(waterfall)
    from odsi_proto.cli import demo_run  # noqa: PLC0415

    with Output(as_json=as_json) as output:
        run_until_signal(demo_run.demonstrate(options, output, stages_count=stages, waterfall=waterfall))
