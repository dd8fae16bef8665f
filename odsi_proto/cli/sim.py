"""``odsi sim``: run the real state machines on a hostile network in virtual time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from odsi_proto.cli.output import Output
from odsi_proto.cli.params import FILE, examples, json_option

# The commands import the simulator when they run: it brings signatures, which help pages do not need.

SEED_MAX = (1 << 63) - 1
"""Seeds are written into file names and other people's programs: 63 bits fit everywhere."""
SEEDS_MAX = 10_000_000
"""A swarm of more is a week on one machine; begin another with ``--first``."""
JOBS_MAX = 256
"""More processes than any machine that this runs on has cores."""
STAGES_MAX = 16
"""Longer paths show nothing new and take their time."""
TOKENS_MAX = 2_000
"""A hundred times what seeds draw."""
LIMIT_S = 60
"""A seed takes a fraction of a second: after a minute it hangs."""
LIMIT_S_MAX = 3_600
FAILURES_MAX = 10
"""More failures than this have one cause."""

DIRECTORY = click.Path(path_type=Path, file_okay=False)
FAILURES_DIRECTORY = Path("sim-failures")


def drawing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What overrides the draw of a seed."""
    for option in (
        click.option(
            "--without",
            multiple=True,
            metavar="FAULT",
            help="Leave out a kind of fault; may be repeated. `all` leaves out every one.",
        ),
        click.option("--tokens", type=click.IntRange(1, TOKENS_MAX), help="Tokens that each request wants."),
        click.option("--stages", type=click.IntRange(1, STAGES_MAX), help="Stages of the path."),
    ):
        command = option(command)
    return command


def report_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where a run goes, beside its result."""
    for option in (
        click.option("--html", type=FILE, help="Draw the run as a sequence diagram into this file."),
        click.option("--log", type=FILE, help="Write the whole log, one event a line, into this file."),
        click.option("--pieces", is_flag=True, help="Show the arrival of every piece of a stream as well."),
        click.option("--quiet", "-q", is_flag=True, help="Print the result without the log."),
    ):
        command = option(command)
    return command


def save_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where scenarios of failures go."""
    text = "Directory for the scenarios of failing seeds; made when there is one."
    return click.option(
        "--save-dir", type=DIRECTORY, default=FAILURES_DIRECTORY, show_default=True, help=text
    )(command)


@click.group(epilog=examples("odsi sim run --seed 39 --html run.html", "odsi sim swarm --seeds 500"))
def sim() -> None:
    """Run the state machines on a hostile network in virtual time.

    Every rule of the protocol is checked from outside. One seed decides everything: the path, the
    network, the faults. Exit code 7: a rule was broken.
    """


@sim.command(
    short_help="Run one seed and show what happens.",
    epilog=examples(
        "odsi sim run --seed 39",
        "odsi sim run --seed 39 --without all --stages 3 --tokens 20 --quiet",
        "odsi sim run --seed 39 --quiet --html run.html --log run.log",
    ),
)
@click.option("--seed", type=click.IntRange(0, SEED_MAX), required=True, help="Decides everything.")
@drawing_options
@report_options
@save_option
@json_option
def run(
    seed: int,
    stages: int | None,
    tokens: int | None,
    without: tuple[str, ...],
    quiet: bool,
    pieces: bool,
    log: Path | None,
    html: Path | None,
    save_dir: Path,
    as_json: bool,
) -> None:
    """Run one seed: the log goes to standard output, one event a line, and the result after it."""
    from odsi_proto.cli import sim_run  # noqa: PLC0415
    from odsi_proto.cli.sim_draw import Drawing  # noqa: PLC0415

    drawing = Drawing.of(stages=stages, tokens=tokens, without=without)
    into = sim_run.Into(quiet=quiet, pieces=pieces, log=log, html=html)
    sim_run.run_seed(seed, drawing, into, save_dir, Output(as_json=as_json))


@sim.command(
    short_help="Run many seeds and count what they reached.",
    epilog=examples("odsi sim swarm --seeds 500", "odsi sim swarm --seeds 100000 --first 500 --json"),
)
@click.option("--seeds", type=click.IntRange(1, SEEDS_MAX), default=500, show_default=True, help="How many.")
@click.option(
    "--first", type=click.IntRange(0, SEED_MAX), default=0, show_default=True, help="Seed to begin with."
)
@click.option("--jobs", "-j", type=click.IntRange(1, JOBS_MAX), help="Processes. Default: one for each core.")
@click.option(
    "--failures-max",
    type=click.IntRange(1, SEEDS_MAX),
    default=FAILURES_MAX,
    show_default=True,
    help="Stop after so many failing seeds.",
)
@click.option(
    "--seed-timeout",
    type=click.IntRange(1, LIMIT_S_MAX),
    default=LIMIT_S,
    show_default=True,
    metavar="SECONDS",
    help="A seed that takes longer has failed.",
)
@drawing_options
@save_option
@json_option
def swarm(
    seeds: int,
    first: int,
    jobs: int | None,
    failures_max: int,
    seed_timeout: int,
    stages: int | None,
    tokens: int | None,
    without: tuple[str, ...],
    save_dir: Path,
    as_json: bool,
) -> None:
    """Run many seeds in several processes; save those that fail, and count what all of them reached.

    The result does not depend on the number of processes.
    """
    from odsi_proto.cli import sim_swarm  # noqa: PLC0415
    from odsi_proto.cli.sim_draw import Drawing  # noqa: PLC0415

    if first + seeds - 1 > SEED_MAX:
        raise click.BadParameter(
            f"{first} and {seeds} seeds end beyond {SEED_MAX}: begin lower", param_hint="--first"
        )
    plan = sim_swarm.SwarmPlan(
        seeds=range(first, first + seeds),
        jobs=jobs or sim_swarm.cores(),
        limit_s=seed_timeout,
        failures_max=failures_max,
        save_dir=save_dir,
        drawing=Drawing.of(stages=stages, tokens=tokens, without=without),
    )
    sim_swarm.run_swarm(plan, Output(as_json=as_json))


@sim.command(
    short_help="Run a saved scenario again.",
    epilog=examples(
        "odsi sim replay sim-failures/seed-1187.json",
        "odsi sim replay seed-1187.json --quiet --html run.html",
    ),
)
@click.argument("file", type=FILE)
@report_options
@json_option
def replay(file: Path, quiet: bool, pieces: bool, log: Path | None, html: Path | None, as_json: bool) -> None:
    """Run the scenario in FILE again, and say whether it still fails in the way that was recorded."""
    from odsi_proto.cli import sim_run  # noqa: PLC0415

    sim_run.replay_file(
        file, sim_run.Into(quiet=quiet, pieces=pieces, log=log, html=html), Output(as_json=as_json)
    )


@sim.command(
    short_help="Find the smallest scenario that fails like FILE.",
    epilog=examples(
        "odsi sim minimise sim-failures/seed-1187.json", "odsi sim minimise seed-1187.json --out small.json"
    ),
)
@click.argument("file", type=FILE)
@click.option("--out", type=FILE, help="Where to write it. Default: FILE with .min.json at its end.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@json_option
def minimise(file: Path, out: Path | None, force: bool, as_json: bool) -> None:
    """Leave out faults and shrink the run in FILE for as long as the same check fails."""
    from odsi_proto.cli import sim_run  # noqa: PLC0415

    sim_run.minimise_file(file, out, Output(as_json=as_json), force=force)
