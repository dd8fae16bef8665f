"""Manifests of real files: hash a whole file once, or check just the tensors that a role will load."""

from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

from odsi_proto.errors import ModelError
from odsi_proto.kernels.hyperparameters import read_config
from odsi_proto.kernels.source import ModelSource, TensorInfo
from odsi_proto.wire.manifest import (
    SIDECAR_BYTES_MAX,
    ModelManifest,
    TensorEntry,
    from_sidecar,
    verify,
)

Progress: TypeAlias = Callable[[int, int], None]
"""Told the bytes done and the bytes in all, after each tensor."""


def no_progress(done: int, total: int) -> None:
    """For callers who do not show any."""


def sidecar_path(model: Path) -> Path:
    """Where the manifest of ``model`` is kept: beside a file, inside a directory."""
    if model.is_dir():
        return model / "model.manifest.json"
    return model.with_name(f"{model.name}.manifest.json")


def load_or_build(
    source: ModelSource, path: Path | None = None, progress: Progress = no_progress
) -> ModelManifest:
    """The manifest at ``path``, or beside the model, or else made from it; raises ``ModelError``.

    A manifest is taken at its word for tensors nobody here loads: those that are loaded go through
    :func:`verify_tensors`.
    """
    if path is None:
        path = sidecar_path(source.path)
        if not path.exists():
            return build_manifest(source, progress)
    try:
        with path.open("rb") as stream:
            raw = stream.read(SIDECAR_BYTES_MAX + 1)
        manifest = from_sidecar(raw.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: not UTF-8 text") from error
    except OSError as error:
        raise ModelError(f"{path}: can not be read: {error.strerror}") from error
    _check_same_tensors(source, manifest, str(path))
    return manifest


def build_manifest(source: ModelSource, progress: Progress = no_progress) -> ModelManifest:
    """The manifest of ``source``, every tensor hashed."""
    config = read_config(source)
    total = sum(info.byte_count for info in source.tensors.values())
    done = 0
    entries = []
    for info in source.tensors.values():
        entries.append(_entry(source, info))
        done += info.byte_count
        progress(done, total)
    return ModelManifest(
        architecture=config.architecture,
        layers_count=config.layers_count,
        width=config.width,
        metadata_sha256=_metadata_sha256(source),
        tensors=tuple(entries),
    )


def verify_tensors(source: ModelSource, manifest: ModelManifest, names: Iterable[str]) -> None:
    """Check the metadata and the named tensors of ``source`` against ``manifest``.

    Each tensor is hashed and proved against the manifest's root; the first difference is a
    ``ModelError`` with both digests. No other tensor is read.
    """
    config = read_config(source)
    stated = (manifest.architecture, manifest.layers_count, manifest.width)
    found = (config.architecture, config.layers_count, config.width)
    if stated != found:
        source.fail(f"architecture, layers and width are {found}, the manifest has {stated}")
    if (digest := _metadata_sha256(source)) != manifest.metadata_sha256:
        source.fail(f"metadata has SHA-256 {digest.hex()}, the manifest has {manifest.metadata_sha256.hex()}")
    for name in names:
        expected = manifest.entry(name)
        if expected is None:
            source.fail(f"tensor {name} is not in the manifest with root {manifest.root.hex()}")
        info = source.tensors.get(name)
        if info is None:
            source.fail(f"tensor {name} is missing, the manifest has {expected.sha256.hex()}")
        entry = _entry(source, info)
        if entry.sha256 != expected.sha256:
            source.fail(
                f"tensor {name} has SHA-256 {entry.sha256.hex()}, the manifest has {expected.sha256.hex()}"
            )
        if not verify(entry, manifest.prove(name), manifest.root):
            source.fail(f"tensor {name} can not be proved against the model's root {manifest.root.hex()}")


def _check_same_tensors(source: ModelSource, manifest: ModelManifest, where: str) -> None:
    """That the sidecar lists the tensors of this model, without hashing any: catches a wrong or stale one."""
    listed = [(entry.name, entry.shape, entry.type, entry.byte_count) for entry in manifest.tensors]
    present = [(info.name, info.shape, info.type.name, info.byte_count) for info in source.tensors.values()]
    if listed != present:
        raise ModelError(f"{where}: describes other tensors than {source.path} has; write it anew")


def _entry(source: ModelSource, info: TensorInfo) -> TensorEntry:
    return TensorEntry(
        name=info.name,
        shape=info.shape,
        type=info.type.name,
        byte_count=info.byte_count,
        sha256=sha256(source.raw(info.name)).digest(),
    )


def _metadata_sha256(source: ModelSource) -> bytes:
    return sha256(source.metadata).digest()
