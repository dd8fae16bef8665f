"""The program ``odsi``: finds the command, runs it, and turns its end into an exit code.

Commands are imported when they are asked for, so that ``odsi --help`` and ``odsi identity`` do
not wait for torch.
"""

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import click

from odsi_proto import __version__
from odsi_proto.cli.failures import ExitCode, failure_of
from odsi_proto.cli.output import report_failure


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """A command that is not imported yet."""

    module: str
    """Module of ``odsi_proto.cli``; the command in it has the name under which it stands here."""
    summary: str
    """Its line in the list of commands."""


COMMANDS: Mapping[str, LazyCommand] = {
    "decode": LazyCommand("decode", "Explain bytes of the wire: digits, a file, or standard input."),
    "demo": LazyCommand("demo", "Run nodes on this machine and let them generate."),
    "generate": LazyCommand("generate", "Generate text, over nodes or in this process."),
    "identity": LazyCommand("identity", "Make and show identities."),
    "kernels": LazyCommand("kernels", "Show what this machine computes, and how fast."),
    "model": LazyCommand("model", "Digest and inspect models."),
    "node": LazyCommand("node", "Run an execution node."),
    "sim": LazyCommand("sim", "Run the state machines on a hostile network in virtual time."),
    "top": LazyCommand("top", "Watch a running node."),
    "vectors": LazyCommand("vectors", "Run, list and show the test vectors of the specification."),
}

EXIT_CODES = """\b
Exit codes:
    0  success
    1  a bug in odsi
    2  wrong usage, configuration or input
    3  an identity that can not be read, written or trusted
    4  a model file that can not be used
    5  a peer that is unreachable, lost, or somebody else
    6  a request that was refused or failed
    7  a simulated run that broke a rule
  130  interrupted (Ctrl-C)
  141  nobody reads the output any more
  143  terminated (SIGTERM)"""


class LazyGroup(click.Group):
    """A group whose commands stand in :data:`COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        lazy = COMMANDS.get(cmd_name)
        if lazy is None:
            return None
        command = getattr(importlib.import_module(f"odsi_proto.cli.{lazy.module}"), cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"odsi_proto.cli.{lazy.module}.{cmd_name} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.summary) for name, lazy in COMMANDS.items()])


@click.group(cls=LazyGroup, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="odsi")
def odsi() -> None:
    """Decentralised inference of language models: a model is cut into ranges of layers, and nodes
    of different owners run them over QUIC.

    Start with `odsi demo`.
    """


def run(arguments: Sequence[str]) -> int:
    """Run the program; its exit code comes back, its failure has been reported."""
    try:
        # Not odsi.main(): it ends the program itself on Ctrl-C and on a closed pipe.
        with odsi.make_context("odsi", list(arguments)) as context:
            odsi.invoke(context)
        sys.stdout.flush()  # here, where a closed pipe is still an exception of ours
    except click.exceptions.Exit as end:  # --help and --version
        return end.exit_code
    except BaseException as error:  # this is the one place that ends all of them
        failure = failure_of(error)
        if failure.code is ExitCode.BROKEN_PIPE:
            _abandon_output()
        # Read from the arguments, because parsing them may be what failed.
        report_failure(failure, as_json="--json" in arguments)
        return failure.code
    return ExitCode.OK


def main() -> NoReturn:
    """Entry point of the console script."""
    if sys.stderr is None:  # closed by the caller: nobody wants to hear of it
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for the rest of the program
    if sys.stdout is None:
        sys.stderr.write("odsi: error: standard output is closed\n")
        sys.exit(ExitCode.BROKEN_PIPE)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character is no failure
    sys.exit(run(sys.argv[1:]))


def _abandon_output() -> None:
    """Let the interpreter flush to nowhere when it exits: the reader of our output has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
