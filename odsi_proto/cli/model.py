"""``odsi model``: digest and inspect model files."""

from pathlib import Path

import click

from odsi_proto.cli.output import Output
from odsi_proto.cli.params import FILE, LAYERS, examples, json_option
from odsi_proto.units import LayerRange

# The commands import what reads model files when they run: it brings torch, which takes seconds.


@click.group(epilog=examples("odsi model manifest model.gguf", "odsi model inspect model.gguf --layers 0-10"))
def model() -> None:
    """Digest and inspect model files."""


@model.command(
    short_help="Digest a model file and write its manifest.",
    epilog=examples("odsi model manifest model.gguf", "odsi model manifest model.gguf --out m.json --force"),
)
@click.argument("file", type=FILE)
@click.option(
    "--out", type=FILE, help="Manifest to write. Default: FILE.manifest.json, where nodes look for it."
)
@click.option("--force", is_flag=True, help="Replace a manifest that exists.")
@json_option
def manifest(file: Path, out: Path | None, force: bool, as_json: bool) -> None:
    """Digest every tensor of FILE once, and write the manifest whose root names the model."""
    from odsi_proto.cli import model_run  # noqa: PLC0415

    model_run.write_manifest(file, out, Output(as_json=as_json), force=force)


@model.command(
    short_help="Show what a model file holds.",
    epilog=examples("odsi model inspect model.gguf", "odsi model inspect model.gguf --layers 10-20 --json"),
)
@click.argument("file", type=FILE)
@click.option("--layers", type=LAYERS, help="Show only the tensors that a node of these layers reads.")
@click.option("--digest", is_flag=True, help="Digest the file, instead of believing the manifest beside it.")
@json_option
def inspect(file: Path, layers: LayerRange | None, digest: bool, as_json: bool) -> None:
    """Show what FILE holds: the model's measures, its licence, its tensors, its manifest's root."""
    from odsi_proto.cli import model_run  # noqa: PLC0415

    model_run.inspect(file, layers, Output(as_json=as_json), digest=digest)
