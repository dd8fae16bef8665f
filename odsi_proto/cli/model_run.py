"""Digests and inspects models; the half of ``odsi model`` that reads them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.table import Table
from rich.text import Text

from odsi_proto.cli.files import write_atomically
from odsi_proto.cli.output import Output
from odsi_proto.errors import ConfigError
from odsi_proto.kernels.config import ModelConfig
from odsi_proto.kernels.hyperparameters import read_config
from odsi_proto.kernels.licence import Licence, find_licence
from odsi_proto.kernels.manifest import build_manifest, load_or_build, sidecar_path
from odsi_proto.kernels.model_path import open_source
from odsi_proto.kernels.roles import check_layers
from odsi_proto.kernels.source import ModelSource, TensorInfo
from odsi_proto.units import LayerRange
from odsi_proto.wire.manifest import ModelManifest, to_sidecar


def write_manifest(path: Path, out: Path | None, output: Output, *, force: bool) -> None:
    """Digest the model at ``path`` and write its manifest."""
    with open_source(path) as model:
        target = out or sidecar_path(model.path)
        if target.exists() and not force:
            raise ConfigError(f"{target} exists: --force replaces it")
        manifest = _digest(model, output)
    write_atomically(target, to_sidecar(manifest))
    fields = {
        "file": str(model.path),
        "manifest": str(target),
        "model_root": manifest.root.hex(),
        "tensors": len(manifest.tensors),
    }
    human = f"model root {manifest.root.hex()}\n  {target}: {len(manifest.tensors)} tensors"
    output.emit("manifest", fields, human=human)


def inspect(path: Path, layers: LayerRange | None, output: Output, *, digest: bool) -> None:
    """Show what the model at ``path`` holds, or what of it a node of ``layers`` reads."""
    with open_source(path) as model:
        config = read_config(model)
        manifest: ModelManifest | None = None
        if digest:
            manifest = _digest(model, output)
        elif sidecar_path(model.path).exists():
            manifest = load_or_build(model)
        tensors = list(model.tensors.values())
        if layers is not None:
            tensors = [model.tensors[name] for name in check_layers(model, config, layers)]
        licence = find_licence(model, path if path.is_dir() else None)
        fields = {
            "file": str(model.path),
            "bytes": model.byte_count,
            "name": model.title,
            "licence": None if licence is None else licence.id or licence.name or licence.file,
            "licence_stated": None if licence is None else asdict(licence),
            "model_root": None if manifest is None else manifest.root.hex(),
            "config": asdict(config),
        }
    rows = [_row(info, manifest) for info in tensors]
    output.emit("model", {**fields, "tensors": rows}, human=_summary(fields, config, licence))
    output.table(_tensor_table(rows))


def _digest(model: ModelSource, output: Output) -> ModelManifest:
    with output.progress() as progress:
        return build_manifest(model, partial(progress, f"digesting {model.path.name}"))


def _row(info: TensorInfo, manifest: ModelManifest | None) -> dict[str, object]:
    entry = None if manifest is None else manifest.entry(info.name)
    return {
        "name": info.name,
        "shape": list(info.shape),
        "type": info.type.name,
        "bytes": info.byte_count,
        "sha256": None if entry is None else entry.sha256.hex(),
    }


def _summary(fields: Mapping[str, object], config: ModelConfig, licence: Licence | None) -> str:
    shown = asdict(config)
    if config.rope_divisors is not None:
        low, high = min(config.rope_divisors), max(config.rope_divisors)
        shown["rope_divisors"] = f"{len(config.rope_divisors)}, from {low:g} to {high:g}"
    measures = "\n".join(f"  {name.replace('_', ' ')}: {value}" for name, value in shown.items())
    root = fields["model_root"] or "unknown: run `odsi model manifest` on it, or add --digest"
    return (
        f"{fields['file']}: {fields['name'] or 'a model without a name'}\n"
        f"  bytes: {fields['bytes']:,}\n"
        f"  licence: {licence or 'not stated'}\n"
        f"  model root: {root}\n{measures}"
    )


def _tensor_table(rows: Sequence[Mapping[str, object]]) -> Table:
    table = Table("tensor", "shape", "type", "SHA-256", box=None)
    table.add_column("bytes", justify="right")
    total = 0
    for row in rows:
        shape, byte_count, digest = row["shape"], row["bytes"], row["sha256"]
        assert isinstance(shape, list)
        assert isinstance(byte_count, int)
        total += byte_count
        shown = digest[:16] if isinstance(digest, str) else "-"
        name, kind = Text(str(row["name"])), str(row["type"])  # as it is: a name is no markup
        table.add_row(name, " x ".join(map(str, shape)), kind, shown, f"{byte_count:,}")
    table.add_section()
    table.add_row(f"{len(rows)} tensors", "", "", "", f"{total:,}")
    return table
