"""What the user sees: for people, or with ``--json`` one object a line for programs.

Results go to standard output, everything about the run (progress, notes, errors) to standard
error. With ``--json`` nothing but the objects is ever on standard output. Text that came from a
model or a peer is stripped of control characters before a terminal interprets them.
"""

import json
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

from odsi_proto.cli.failures import Failure

if TYPE_CHECKING:  # rich takes 70 ms to import: only what prints a table or a bar pays for it
    from rich.progress import Progress
    from rich.table import Table

PROGRESS_AFTER_S = 1.0
"""What takes less needs no bar."""


@dataclass(slots=True)
class Output:
    """Where a command reports to; one switch for both forms."""

    as_json: bool
    _line_open: bool = field(default=False, init=False)
    """Whether streamed text has left the cursor inside a line."""

    def emit(self, event: str, fields: Mapping[str, object], *, human: str | None = None) -> None:
        """Report one event: as an object, or as the line for people where there is one."""
        if self.as_json:
            _write_object(event, fields)
        elif human is not None:
            self._say(printable(human))

    def stream(self, event: str, fields: Mapping[str, object], *, text: str) -> None:
        """Report a piece of text that others follow: people see the pieces joined."""
        if self.as_json:
            _write_object(event, fields)
        else:
            self._write_piece(text)

    def stream_rest(self, text: str) -> None:
        """Show people the end of a streamed text, and end its line."""
        if not self.as_json:
            self._write_piece(text)
            self.close_line()

    def table(self, table: "Table") -> None:
        """Show a table to people."""
        if not self.as_json:
            from rich.console import Console  # noqa: PLC0415  # see TYPE_CHECKING above

            console = Console()
            with console.capture() as captured:  # rich would end the program itself on a closed pipe
                console.print(table)
            self._say(captured.get().removesuffix("\n"))

    def note(self, text: str) -> None:
        """Tell people, not programs, something that is not the result."""
        if not self.as_json:
            self.close_line()
            sys.stderr.write(printable(text) + "\n")
            sys.stderr.flush()

    def close_line(self) -> None:
        """End the line that streamed text left open."""
        if self._line_open:
            self._line_open = False
            sys.stdout.write("\n")
            sys.stdout.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_line()  # or an error would be written behind the text

    @contextmanager
    def progress(self) -> Iterator["ProgressBar"]:
        """A bar on standard error, for people at a terminal, once it has taken long enough."""
        bar = ProgressBar()
        if not self.as_json and sys.stderr.isatty():
            bar.show_later()
        try:
            yield bar
        finally:
            bar.close()

    def _write_piece(self, text: str) -> None:
        if text:
            shown = printable(text) if sys.stdout.isatty() else text
            sys.stdout.write(shown)
            sys.stdout.flush()
            self._line_open = not shown.endswith("\n")

    def _say(self, text: str) -> None:
        self.close_line()
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


class ProgressBar:
    """Shows how far something is; call it with what is done, how much of it, and out of how much.

    The bar comes up by itself, because the longest wait, importing torch, calls nobody.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # the timer and whoever does the work are other threads
        self._timer = threading.Timer(PROGRESS_AFTER_S, self._show)
        self._timer.daemon = True
        self._state: tuple[str, int, int | None] = ("starting", 0, None)
        self._bar: Progress | None = None
        self._is_closed = False

    def __call__(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` units of ``what`` are finished."""
        with self._lock:
            self._state = (what, done, total)
            self._update()

    def show_later(self) -> None:
        """Bring the bar up unless it is closed before."""
        self._timer.start()

    def close(self) -> None:
        """Take the bar away, for good."""
        self._timer.cancel()
        with self._lock:
            self._is_closed = True
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def _show(self) -> None:
        from rich.console import Console  # noqa: PLC0415  # see TYPE_CHECKING above
        from rich.progress import Progress  # noqa: PLC0415

        with self._lock:
            if not self._is_closed:
                console = Console(stderr=True)
                # Rich would send what is printed meanwhile to standard error: only if both are the terminal.
                self._bar = Progress(console=console, transient=True, redirect_stdout=sys.stdout.isatty())
                self._bar.add_task("")
                self._update()
                self._bar.start()

    def _update(self) -> None:
        if self._bar is not None:
            what, done, total = self._state
            self._bar.update(self._bar.task_ids[0], description=what, completed=done, total=total)


def report_failure(failure: Failure, *, as_json: bool) -> None:
    """Print why a command failed: a line for people, and an object for programs."""
    if failure.message is None:
        return
    line = printable(failure.message.replace("\n", " "))
    sys.stderr.write(f"{failure.details}odsi: error: {line}\n")
    sys.stderr.flush()
    if as_json:
        with suppress(BrokenPipeError):  # whoever read the objects has gone; the line above is there
            _write_object("error", {"code": int(failure.code), "message": line})


def printable(text: str) -> str:
    """``text`` without what a terminal would obey: control characters other than line feed and tab."""
    return "".join(
        char if char in "\n\t" or not _is_control(char) else "\N{REPLACEMENT CHARACTER}" for char in text
    )


def _is_control(char: str) -> bool:
    return char < " " or "\x7f" <= char <= "\x9f"


def _write_object(event: str, fields: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()
