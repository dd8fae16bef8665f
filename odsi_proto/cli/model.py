"""``odsi model``: digest and inspect models."""

from pathlib import Path

import click

from odsi_proto.cli.output import Output
from odsi_proto.cli.params import FILE, LAYERS, MODEL, examples, json_option
from odsi_proto.units import LayerRange

# The commands import what reads model files when they run: it brings torch, which takes seconds.


@click.group(
    epilog=examples("odsi model manifest model.gguf", "odsi model inspect Qwen2.5-0.5B/ --layers 0-10")
)
def model() -> None:
    """Digest and inspect models.

    A model is a GGUF file, or a directory with one or with config.json and safetensors.
    """


@model.command(
    short_help="Digest a model and write its manifest.",
    epilog=examples("odsi model manifest model.gguf", "odsi model manifest model.gguf --out m.json --force"),
)
@click.argument("path", type=MODEL)
@click.option(
    "--out",
    type=FILE,
    help="Manifest to write. Default: FILE.manifest.json or DIR/model.manifest.json, where nodes look.",
)
@click.option("--force", is_flag=True, help="Replace a manifest that exists.")
@json_option
def manifest(path: Path, out: Path | None, force: bool, as_json: bool) -> None:
    """Digest every tensor of the model at PATH once, and write the manifest whose root names the model."""
    from odsi_proto.cli import model_run  # noqa: PLC0415

    model_run.write_manifest(path, out, Output(as_json=as_json), force=force)


@model.command(
    short_help="Show what a model holds.",
    epilog=examples("odsi model inspect model.gguf", "odsi model inspect model.gguf --layers 10-20 --json"),
)
@click.argument("path", type=MODEL)
@click.option("--layers", type=LAYERS, help="Show only the tensors that a node of these layers reads.")
@click.option(
    "--digest", is_flag=True, help="Digest the model, instead of believing the manifest kept with it."
)
@json_option
def inspect(path: Path, layers: LayerRange | None, digest: bool, as_json: bool) -> None:
    """Show what the model at PATH holds: its measures, its licence, its tensors, its manifest's root."""
    from odsi_proto.cli import model_run  # noqa: PLC0415

    model_run.inspect(path, layers, Output(as_json=as_json), digest=digest)
