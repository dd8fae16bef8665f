"""The program itself: what it imports, how it fails, what its exit codes are."""

import subprocess
import sys
from importlib import import_module

import click
import pytest
from cli.programs import Here, program

from odsi_proto import __version__
from odsi_proto.cli.failures import ExitCode, Terminated, failure_of
from odsi_proto.cli.main import COMMANDS, EXIT_CODES
from odsi_proto.cli.output import printable, report_failure
from odsi_proto.errors import (
    CapacityError,
    ConfigError,
    IdentityError,
    LocalProtocolError,
    Malformed,
    ModelError,
    PeerError,
    RemoteProtocolError,
    RequestFailedError,
)

HEAVY = ("torch", "aioquic", "tokenizers", "rich", "asyncio")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["identity", "new", "--help"],
        ["identity", "show", "/nonexistent"],
        ["model", "--help"],
    ],
)
def test_commands_that_need_no_model_import_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom odsi_proto.cli.main import run\n"
        f"run({arguments!r})\nprint([name for name in {HEAVY!r} if name in sys.modules])\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["node", "generate", "demo", "top"])
def test_help_and_usage_errors_do_not_wait_for_torch(command: str) -> None:
    script = (
        "import sys\nfrom odsi_proto.cli.main import run\n"
        f"run([{command!r}, '--help'])\nassert run([{command!r}, '--nonsense']) == 2\n"
        "print('torch' in sys.modules)\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "False"


def test_the_list_of_commands_has_a_summary_of_each(odsi: Here) -> None:
    outcome = odsi("--help")

    assert outcome.code == 0
    for name, lazy in COMMANDS.items():
        assert f"{name} " in outcome.out
        assert lazy.summary in outcome.out


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_the_summary_that_it_is_listed_with(name: str) -> None:
    command = getattr(import_module(f"odsi_proto.cli.{COMMANDS[name].module}"), name)

    assert command.help.splitlines()[0] == COMMANDS[name].summary


@pytest.mark.parametrize(
    "path",
    [
        ["demo"],
        ["generate"],
        ["identity"],
        ["identity", "new"],
        ["identity", "show"],
        ["model", "inspect"],
        ["model", "manifest"],
        ["node"],
    ],
)
def test_every_help_page_ends_with_examples(odsi: Here, path: list[str]) -> None:
    outcome = odsi(*path, "--help")

    assert outcome.code == 0
    assert f"Examples:\n    odsi {' '.join(path)}" in outcome.out


def test_every_exit_code_is_in_the_help() -> None:
    listed = {int(line.split()[0]) for line in EXIT_CODES.splitlines()[2:]}

    assert listed == {code.value for code in ExitCode}


def test_the_version_is_that_of_the_package(odsi: Here) -> None:
    assert odsi("--version").out == f"odsi, version {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["identity"], ["model"]])
def test_a_bare_command_shows_its_help_and_fails(odsi: Here, arguments: list[str]) -> None:
    outcome = odsi(*arguments)

    assert outcome.code == ExitCode.USAGE
    assert outcome.out == ""
    assert outcome.err.startswith("Usage: odsi")
    assert outcome.err.endswith("odsi: error: a command is missing\n")


def test_an_unknown_command_is_one_line(odsi: Here) -> None:
    outcome = odsi("frobnicate")

    assert outcome.code == ExitCode.USAGE
    assert outcome.message == "No such command 'frobnicate' (see `odsi --help`)"


def test_with_json_an_error_is_also_an_object(odsi: Here) -> None:
    outcome = odsi("identity", "show", "/nonexistent", "--json")

    assert outcome.events == [{"event": "error", "code": 3, "message": outcome.message}]


def test_with_json_even_an_option_that_can_not_be_parsed_is_an_object(odsi: Here) -> None:
    outcome = odsi("node", "--layers", "x", "--json")

    assert outcome.events == [{"event": "error", "code": 2, "message": outcome.message}]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (click.UsageError("x"), 2),
        (ConfigError("x"), 2),
        (CapacityError("x"), 2),
        (FileNotFoundError(2, "x", "y"), 2),
        (IdentityError("x"), 3),
        (ModelError("x"), 4),
        (PeerError("x"), 5),
        (RemoteProtocolError(1, "x"), 5),
        (Malformed("x"), 5),
        (RequestFailedError("x"), 6),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 141),
        (Terminated(), 143),
    ],
)
def test_what_others_cause_has_its_code_and_no_traceback(error: BaseException, code: int) -> None:
    failure = failure_of(error)

    assert failure.code == code
    assert failure.details == ""


@pytest.mark.parametrize("error", [LocalProtocolError("x"), ValueError("x"), AssertionError()])
def test_what_we_cause_has_a_traceback_and_asks_for_a_report(error: BaseException) -> None:
    failure = failure_of(error)

    assert failure.code == ExitCode.BUG
    assert type(error).__name__ in failure.details
    assert failure.message is not None
    assert "please report" in failure.message


def test_an_error_of_the_system_names_the_file() -> None:
    assert (
        failure_of(PermissionError(13, "Permission denied", "m.gguf")).message == "m.gguf: Permission denied"
    )


def test_a_message_of_several_lines_is_shown_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    report_failure(failure_of(PeerError("one\ntwo")), as_json=False)

    assert capsys.readouterr().err == "odsi: error: one two\n"


def test_what_a_peer_said_can_not_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    report_failure(failure_of(PeerError("\x1b[2J\x9b1m\rgone")), as_json=False)

    assert capsys.readouterr().err == "odsi: error: \ufffd[2J\ufffd1m\ufffdgone\n"


def test_printable_text_is_left_alone() -> None:
    assert printable("Grüße,\n\t日本 🙂") == "Grüße,\n\t日本 🙂"


def test_a_closed_pipe_ends_quietly() -> None:
    with program("--help") as running:
        assert running.process.stdout is not None
        running.process.stdout.close()
        running.process.stdout = None

        outcome = running.finish(20)

    assert outcome.code == ExitCode.BROKEN_PIPE
    assert outcome.err == ""
