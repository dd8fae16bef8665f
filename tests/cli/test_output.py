"""What goes to standard output and what beside it, for people and for programs."""

import json
import os
import pty
import subprocess
import sys

import pytest

from odsi_proto.cli.output import Output

BAR_SCRIPT = """
from odsi_proto.cli import output
output.PROGRESS_AFTER_S = {after_s}
with output.Output(as_json={as_json}).progress() as bar:
    bar("digesting", 1, 2)
    if bar._timer.is_alive() and {after_s} == 0:
        bar._timer.join()
"""


def on_a_terminal(script: str) -> str:
    """What ``script`` writes to a standard error that is a terminal."""
    master, slave = pty.openpty()
    try:
        subprocess.run([sys.executable, "-c", script], stderr=slave, check=True)
        os.write(slave, b"END")
        shown = b""
        while not shown.endswith(b"END"):
            shown += os.read(master, 4_096)
    finally:
        os.close(master)
        os.close(slave)
    return shown.decode()


def test_pieces_of_text_are_joined_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    with Output(as_json=False) as output:
        output.stream("token", {}, text="Hel")
        output.stream("token", {}, text="lo")
        output.stream_rest("!")

    assert capsys.readouterr().out == "Hello!\n"


def test_text_that_breaks_off_ends_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    def broken_off() -> None:
        with Output(as_json=False) as output:
            output.stream("token", {}, text="Hel")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()

    assert capsys.readouterr().out == "Hel\n"


def test_a_line_that_is_at_its_end_is_not_ended_again(capsys: pytest.CaptureFixture[str]) -> None:
    with Output(as_json=False) as output:
        output.stream("token", {}, text="Hello\n")

    assert capsys.readouterr().out == "Hello\n"


def test_programs_get_objects_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    with Output(as_json=True) as output:
        output.stream("token", {"text": "é\u2028"}, text="é")
        output.stream_rest("!")
        output.note("a note")
        output.emit("result", {"n": 1}, human="text")

    captured = capsys.readouterr()
    assert [json.loads(line) for line in captured.out.splitlines()] == [
        {"event": "token", "text": "é\u2028"},
        {"event": "result", "n": 1},
    ]
    assert captured.out.isascii()
    assert captured.err == ""


def test_a_terminal_gets_no_control_characters_from_a_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)

    with Output(as_json=False) as output:
        output.stream("token", {}, text="\x1b]0;title\x07")

    assert capsys.readouterr().out == "\ufffd]0;title\ufffd\n"


def test_a_line_for_people_has_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).emit("model", {}, human="name: \x1b[2J")

    assert capsys.readouterr().out == "name: \ufffd[2J\n"


def test_a_bar_comes_up_by_itself() -> None:
    assert "digesting" in on_a_terminal(BAR_SCRIPT.format(after_s=0, as_json=False))


def test_what_is_quick_has_no_bar() -> None:
    assert on_a_terminal(BAR_SCRIPT.format(after_s=60, as_json=False)) == "END"


def test_programs_have_no_bar() -> None:
    assert on_a_terminal(BAR_SCRIPT.format(after_s=0, as_json=True)) == "END"
