"""Values and options that several commands take, so that a name means the same everywhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import click

from odsi_proto.errors import ConfigError
from odsi_proto.node.settings import THREADS_MAX, Listen
from odsi_proto.routing.path import Peer
from odsi_proto.units import LayerRange
from odsi_proto.wire.messages import LIST_ITEMS_MAX

T = TypeVar("T")
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Parsed(click.ParamType[T], Generic[T]):
    """A value that one of our own parsers reads; its ``ConfigError`` becomes a usage error."""

    def __init__(self, name: str, parse: Callable[[str], T]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:
        """What ``value`` says; click calls this again with what it already converted."""
        if not isinstance(value, str):
            converted: T = value
            return converted
        try:
            return self._parse(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


def _path_of_peers(text: str) -> tuple[Peer, ...]:
    return tuple(Peer.parse(part) for part in text.split(","))


def _layer_numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or list(numbers) != sorted(set(numbers)) or numbers[0] < 1:
        raise ConfigError(f"{text!r} is not a list of cuts: expected ascending layer numbers, as in 10,20")
    return numbers


def _metrics_address(text: str) -> Listen:
    """Where a node serves metrics, also as its URL."""
    try:
        address = Listen.parse(text.removeprefix("http://").partition("/")[0])
    except ConfigError:
        address = None
    if address is None or not address.port:
        raise ConfigError(f"{text!r} is not the address of a node's metrics: expected HOST:PORT")
    return address


STAGES_MAX = LIST_ITEMS_MAX
"""As many as fit in the message that opens a path."""

LAYERS = Parsed("LO-HI", LayerRange.parse)
LISTEN = Parsed("HOST:PORT", Listen.parse)
METRICS_ADDRESS = Parsed("HOST:PORT", _metrics_address)
PEER = Parsed("ID@HOST:PORT", Peer.parse)
PATH = Parsed("PEER,PEER,...", _path_of_peers)
CUTS = Parsed("LAYER,LAYER,...", _layer_numbers)
FILE = click.Path(path_type=Path, dir_okay=False)
"""A file that need not exist: whoever opens it says better what is wrong."""


MODEL = click.Path(path_type=Path)
"""A model: a GGUF file, or a directory."""


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--json``: one object a line on standard output."""
    text = "Print one JSON object a line on standard output, and nothing else (docs/json.md)."
    return click.option("--json", "as_json", is_flag=True, help=text)(command)


def model_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--model``: a file or a directory."""
    text = "GGUF file or model directory. Default: the file that `make setup` installed."
    return click.option("--model", type=MODEL, help=text)(command)


def threads_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--threads``: compute threads of this process."""
    text = "Compute threads of a process."
    threads = click.IntRange(1, THREADS_MAX)
    return click.option("--threads", type=threads, default=1, show_default=True, help=text)(command)


def waterfall_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--waterfall``: a page about one request."""
    text = "Write where the time of every token went, as one HTML file."
    return click.option("--waterfall", type=FILE, help=text)(command)


def log_level_option(default: str) -> Decorator:
    """``--log-level``: how much of what happens is written to standard error."""
    levels = click.Choice(["debug", "info", "warning", "error"])
    text = "Least serious events to write to standard error."
    return click.option("--log-level", type=levels, default=default, show_default=True, help=text)


def examples(*lines: str) -> str:
    """An Examples section for the end of a help page; each line stays as it is."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
