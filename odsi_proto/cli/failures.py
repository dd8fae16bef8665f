"""The one place where an exception becomes an exit code and a line for the user.

A traceback is for our own bugs. Whatever a user, a file, a peer or a signal can cause ends in one
line on standard error and in a code that a script can tell apart.
"""

import signal
import traceback
from dataclasses import dataclass
from enum import IntEnum

import click

from odsi_proto.errors import (
    CapacityError,
    ConfigError,
    IdentityError,
    Incomplete,
    LocalProtocolError,
    Malformed,
    ModelError,
    OdsiError,
    PeerError,
    RemoteProtocolError,
    RequestFailedError,
)


class ExitCode(IntEnum):
    """What a command's exit code means. Documented in ``docs/cli.md`` and in ``odsi --help``."""

    OK = 0
    BUG = 1
    USAGE = 2
    IDENTITY = 3
    MODEL = 4
    PEER = 5
    REQUEST = 6
    CHECK = 7
    INTERRUPTED = 128 + signal.SIGINT
    BROKEN_PIPE = 128 + signal.SIGPIPE
    TERMINATED = 128 + signal.SIGTERM


class CheckFailedError(OdsiError):
    """A simulated run broke a rule of the protocol."""


class Terminated(BaseException):
    """SIGTERM arrived; like ``KeyboardInterrupt``, it is nobody's error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How a command ended that did not succeed."""

    code: ExitCode
    message: str | None
    """One line; ``None`` where nobody is left to read it."""
    details: str = ""
    """What goes before the line: a traceback for our own bugs, a help page for a bare command."""


_CODES: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (click.ClickException, ExitCode.USAGE),
    (ConfigError, ExitCode.USAGE),
    (CapacityError, ExitCode.USAGE),
    (IdentityError, ExitCode.IDENTITY),
    (ModelError, ExitCode.MODEL),
    (PeerError, ExitCode.PEER),
    (RemoteProtocolError, ExitCode.PEER),
    (Malformed, ExitCode.PEER),  # files turn theirs into IdentityError and ModelError
    (Incomplete, ExitCode.PEER),
    (RequestFailedError, ExitCode.REQUEST),
    (CheckFailedError, ExitCode.CHECK),
    (LocalProtocolError, ExitCode.BUG),
    (BrokenPipeError, ExitCode.BROKEN_PIPE),
    (OSError, ExitCode.USAGE),
    (KeyboardInterrupt, ExitCode.INTERRUPTED),
    (click.Abort, ExitCode.INTERRUPTED),
    (Terminated, ExitCode.TERMINATED),
)
"""The first row that matches decides; what matches none is a bug."""


def failure_of(error: BaseException) -> Failure:
    """The code and the line for an exception that ended a command."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.BUG)
    match code:
        case ExitCode.BUG:
            return Failure(
                code=code,
                message=f"a bug, please report it with the lines above: {type(error).__name__}: {error}",
                details="".join(traceback.format_exception(error)),
            )
        case ExitCode.BROKEN_PIPE:
            return Failure(code=code, message=None)
        case ExitCode.INTERRUPTED:
            return Failure(code=code, message="interrupted")
        case ExitCode.TERMINATED:
            return Failure(code=code, message="terminated")
        case _:
            bare = isinstance(error, click.exceptions.NoArgsIsHelpError)
            return Failure(code=code, message=_sentence(error), details=f"{error}\n\n" if bare else "")


def _sentence(error: BaseException) -> str:
    match error:
        case click.exceptions.NoArgsIsHelpError():
            return "a command is missing"
        case click.UsageError(ctx=click.Context() as context):
            return f"{error.format_message().rstrip('.')} (see `{context.command_path} --help`)"
        case click.ClickException():
            return error.format_message().rstrip(".")
        case OSError(filename=str() | bytes() as name, strerror=str() as reason):
            return f"{name!s}: {reason}"
        case _:
            return str(error) or type(error).__name__
