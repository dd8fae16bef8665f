"""``odsi decode``: explain bytes of the wire, field by field."""

import sys
from pathlib import Path

import click

from odsi_proto.cli.output import Output, printable
from odsi_proto.cli.params import examples, json_option
from odsi_proto.errors import ConfigError
from odsi_proto.wire.annotate import Annotation, Kind, Note, annotate

INPUT_BYTES_MAX = 1 << 20
"""A megabyte of fields is more than anybody reads."""

BYTES_SHOWN_MAX = 16


@click.command(epilog=examples("odsi decode 12051403627965", "odsi decode stream.bin --kind control"))
@click.argument("source")
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in Kind]),
    default=Kind.AUTO.value,
    show_default=True,
    help="What the bytes are, if their beginning does not tell.",
)
@json_option
def decode(source: str, kind: str, as_json: bool) -> None:
    """Explain bytes of the wire: digits, a file, or standard input.

    SOURCE is hexadecimal digits, a file, or - for standard input. Every field is shown on a line.

    Knows control streams, frames, step streams, delegations, signed messages and their bodies. A
    file may hold the bytes themselves or their digits. Of malformed bytes, what was understood is
    shown, and where it stops; the exit code is 2 then.
    """
    data = _bytes_of(source)
    found = annotate(data, Kind(kind))
    output = Output(as_json=as_json)
    if as_json:
        output.emit("decoded", _fields(found, data))
    else:
        _print(found, data)
    if found.problems:
        first = found.problems[0]
        raise ConfigError(f"malformed at byte {first.offset}: {first.what}")


def _bytes_of(source: str) -> bytes:
    digits = _from_digits(source)
    if digits is not None:
        return digits
    if source == "-":
        raw = sys.stdin.buffer.read(2 * INPUT_BYTES_MAX + 1)
    else:
        file = Path(source)
        if not file.is_file():
            raise ConfigError(f"{source!r} is neither hexadecimal digits nor a file")
        with file.open("rb") as opened:
            raw = opened.read(2 * INPUT_BYTES_MAX + 1)
    as_digits = _from_digits(raw.decode("latin-1")) if raw else b""
    data = raw if as_digits is None else as_digits
    if len(data) > INPUT_BYTES_MAX:
        raise ConfigError(f"{source}: more than {INPUT_BYTES_MAX} bytes")
    return data


def _from_digits(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text.strip())
    except ValueError:
        return None


def _fields(found: Annotation, data: bytes) -> dict[str, object]:
    return {
        "kind": found.kind.value,
        "bytes": len(data),
        "fields": [
            {
                "offset": note.offset,
                "bytes": data[note.offset : note.offset + note.size].hex(),
                "depth": note.depth,
                "name": note.name,
                "value": note.value,
            }
            for note in found.notes
        ],
        "problems": [{"offset": problem.offset, "what": problem.what} for problem in found.problems],
    }


def _print(found: Annotation, data: bytes) -> None:
    from rich.console import Console  # noqa: PLC0415  # 70 ms that --json and --help do not need
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False, soft_wrap=True)
    with console.capture() as captured:
        for note in found.notes:
            console.print(
                Text.assemble(
                    (f"{note.offset:>6}  ", "dim"),
                    (f"{_shown(note, data):<36}", "cyan"),
                    "  " * note.depth,
                    (note.name, "bold"),
                    f"  {printable(note.value)}",
                )
            )
        for problem in found.problems:
            console.print(Text(f"{problem.offset:>6}  {printable(problem.what)}", style="bold red"))
    sys.stdout.write(captured.get())
    sys.stdout.flush()


def _shown(note: Note, data: bytes) -> str:
    raw = data[note.offset : note.offset + min(note.size, BYTES_SHOWN_MAX)]
    return raw.hex() + ("…" if note.size > BYTES_SHOWN_MAX else "")
