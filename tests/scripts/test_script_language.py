"""The language of scripts: what is wrong with one is said with file and line, and runs are the same."""

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import pytest

from odsi_proto.statemachine.table import Verdict
from odsi_proto.testing.script import Block, Script, ScriptError, parse_script, run_script
from odsi_proto.testing.script_commands import COMMANDS
from odsi_proto.testing.script_log import describe_effect
from odsi_proto.testing.script_names import Names
from odsi_proto.units import RequestId

HEAD = "# Shows something.\nspec: STEP-001\n\n"
DOCUMENT = Path(__file__).parents[2] / "docs" / "golden-conversations.md"
SCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: an empty script: expected a comment that says what it shows"),
        ("spec: STEP-001\n", "1: expected a comment that says what the script shows"),
        ("# Shows something.\n", "1: expected one line 'spec: STEP-001 ...' after the comment"),
        ("# Shows something.\nspec:\n", "2: no requirement ids"),
        ("# Shows something.\nspec: STEP-1\n", "2: 'STEP-1' is no requirement id"),
        (HEAD + "path\n", "4: commands without '----' after them"),
        (HEAD + "----\n", "4: '----' without commands before it"),
    ],
)
def test_a_script_that_can_not_be_read_names_the_line(text: str, message: str) -> None:
    with pytest.raises(ScriptError, match=re.escape(f"x.txt:{message}")):
        parse_script(text, "x.txt")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("fly", "no command 'fly'; there are advance, alter, bytes"),
        ("quiet", "expected a command after 'quiet'"),
        ("path", "the path is there already"),
        ("send 1", "no request was opened yet"),
        ("open by=stage-0", "stage-0 is no client"),
        ("open by=nobody", "no participant 'nobody'; there are client, stage-0"),
        ("open codec=F99", "codec=F99: expected a number or one of"),
        ("open width=wide", "width=wide: expected a whole number"),
        ("open width=4 width=4", "width= is given twice"),
        ("open sideways=yes", "'sideways=yes' is not understood; known here: by, stages"),
        ("advance 1.5us", "a duration is a whole number of microseconds"),
        ("advance soon", "expected a duration, as 250us, 5ms or 2s"),
        ("advance -1s", "time does not go back"),
        ("hold client stage-0", "expected 'client -> PARTICIPANT', not 'stage-0'"),
        ("release client -> stage-0", "client -> stage-0 is not held"),
        ("deliver client -> stage-0 step-1", "no stream 'step-1' on client -> stage-0; there are control"),
        ("deliver client -> stage-0 control", "nothing of control is withheld on client -> stage-0"),
        ("repeat client -> stage-0 step-1", "no step 'step-1' on client -> stage-0; there are none"),
        ("frame client -> stage-0 HI", "no frame type 'HI'; there are HELLO, AUTH"),
        ("frame client -> stage-0 ABANDON code=NO_ERROR", "ABANDON needs handle="),
        ("frame client -> stage-0 OPEN handle=0 stage=0 message=request-0", "no request 'request-0'"),
        ("bytes client -> stage-0 control 0", "expected bytes in hexadecimal, as 1bff or 00*16"),
        ("output stage-0", "the executor of stage-0 owes no such answer"),
        ("lose client stage-0 at=stage-1", "at=stage-1: expected client or stage-0"),
        ("advance '1s", "No closing quotation"),
    ],
)
def test_a_command_that_can_not_be_carried_out_names_the_line(command: str, message: str) -> None:
    script = parse_script(HEAD + f"path\n{command}\n----\n", "x.txt")
    with pytest.raises(ScriptError, match=re.escape("x.txt:5: ") + ".*" + re.escape(message)):
        run_script(script)


class Colour(Enum):
    """States of a machine that no table has."""

    RED = 1
    GREEN = 2


class Transition(NamedTuple):
    """An effect with the fields of a table's step."""

    machine: str
    subject: tuple[bytes, int]
    before: Colour
    received: Colour
    verdict: Verdict
    after: Colour


@dataclass(frozen=True)
class NewThing:
    """An effect that the log has not heard of."""

    request: bytes
    colour: Colour


def test_effects_that_the_log_does_not_know_are_written_field_by_field() -> None:
    names, request = Names(), RequestId(bytes(range(16)))
    names.add_request(request)
    moved = Transition("light", (request, 4), Colour.RED, Colour.GREEN, Verdict.REFUSED, Colour.GREEN)
    assert describe_effect(names, moved, "") == ("  light request-0/4: RED + GREEN -> GREEN (refused)", ())
    stayed = Transition("light", (request, 4), Colour.RED, Colour.GREEN, Verdict.LEGAL, Colour.RED)
    assert describe_effect(names, stayed, "") == ("", ())
    assert describe_effect(names, NewThing(request, Colour.RED), "") == ("new thing request-0 colour=RED", ())


def test_what_an_endpoint_raises_is_our_bug_and_passes_through_with_the_line() -> None:
    script = parse_script(HEAD + "path\nquiet open\nsend -1\n----\n", "x.txt")
    with pytest.raises(OverflowError) as caught:
        run_script(script)
    assert caught.value.__notes__ == ["x.txt:6: send -1"]


def test_a_script_made_by_a_program_is_what_its_text_says() -> None:
    made = Script(
        name="found.txt",
        title=("Two commands.",),
        spec=("STEP-001",),
        blocks=(Block(commands=("path stages=2", "quiet open")), Block(commands=("send 1",))),
    )
    read = parse_script(made.render(), "found.txt")
    assert run_script(made).render() == run_script(read).render()


def test_a_run_leaves_nothing_for_the_next() -> None:
    path = Path(__file__).with_name("step-prompt.txt")
    script = parse_script(path.read_text(encoding="utf-8"), path.name)
    assert run_script(script) == run_script(script)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_described_and_used(name: str) -> None:
    assert re.search(rf"^\| `{name}\b", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert any(
        re.search(rf"^(quiet )?{name}\b", path.read_text(encoding="utf-8"), re.MULTILINE) for path in SCRIPTS
    )
