"""``odsi vectors``: run, list and show the test vectors of the specification."""

import json
from collections import Counter
from pathlib import Path

import click

from odsi_proto.cli.output import Output
from odsi_proto.cli.params import examples, json_option
from odsi_proto.errors import ConfigError, RequestFailedError
from odsi_proto.testing.vectors import Vector, check, default_directory, load

DIRECTORY = click.Path(path_type=Path, file_okay=False, exists=True)
FAILURES_SHOWN_MAX = 20
"""More failures than this have one cause."""

dir_option = click.option(
    "--dir", "directory", type=DIRECTORY, help="Directory of vectors. Default: those of this release."
)


@click.group(epilog=examples("odsi vectors verify", "odsi vectors show tags/five-tokens"))
def vectors() -> None:
    """Run, list and show the test vectors of the specification."""


@vectors.command(epilog=examples("odsi vectors verify", "odsi vectors verify 'machine-steps/*' --json"))
@click.argument("pattern", default="*")
@dir_option
@json_option
def verify(pattern: str, directory: Path | None, as_json: bool) -> None:
    """Run the vectors whose name fits PATTERN (default: all) against this implementation."""
    output = Output(as_json=as_json)
    chosen = _chosen(directory, pattern)
    failed = 0
    for vector in chosen:
        problems = check(vector)
        if problems:
            failed += 1
            shown = failed <= FAILURES_SHOWN_MAX
            output.emit(
                "vector_failed",
                {"name": vector.name, "problems": list(problems)},
                human=f"{vector.name}: {problems[0]}" if shown else None,
            )
    counts = Counter(vector.kind for vector in chosen)
    passed = len(chosen) - failed
    human = (
        f"{passed} of {len(chosen)} vectors pass ({', '.join(f'{n} {kind}' for kind, n in counts.items())})"
    )
    output.emit("vectors", {"passed": passed, "failed": failed, "kinds": dict(counts)}, human=human)
    if failed:
        raise RequestFailedError(f"{failed} of {len(chosen)} vectors fail")


@vectors.command("list", epilog=examples("odsi vectors list", "odsi vectors list 'frames/*'"))
@click.argument("pattern", default="*")
@dir_option
@json_option
def list_(pattern: str, directory: Path | None, as_json: bool) -> None:
    """List the vectors whose name fits PATTERN (default: all)."""
    output = Output(as_json=as_json)
    for vector in _chosen(directory, pattern):
        human = f"{vector.kind:<10}  {vector.name}"
        output.emit("vector", {"name": vector.name, "kind": vector.kind}, human=human)


@vectors.command(epilog=examples("odsi vectors show anchors/step", "odsi vectors show tags/one-token --json"))
@click.argument("name")
@dir_option
@json_option
def show(name: str, directory: Path | None, as_json: bool) -> None:
    """Show the vector NAME."""
    found = [vector for vector in load(directory or default_directory()) if vector.name == name]
    if not found:
        raise ConfigError(f"no vector is called {name!r}: `odsi vectors list` has the names")
    vector = found[0]
    fields = {"name": vector.name, "kind": vector.kind, "vector": dict(vector.data)}
    Output(as_json=as_json).emit("vector", fields, human=json.dumps(dict(vector.data), indent=2))


def _chosen(directory: Path | None, pattern: str) -> tuple[Vector, ...]:
    found = load(directory or default_directory())
    chosen = tuple(vector for vector in found if Path(vector.name).match(pattern) or pattern == "*")
    if not chosen:
        raise ConfigError(f"no vector fits {pattern!r}: `odsi vectors list` has the names")
    return chosen
