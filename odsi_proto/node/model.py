"""Opens a model with the manifest that names it on the wire."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from odsi_proto.kernels.manifest import load_or_build
from odsi_proto.kernels.model_path import open_source
from odsi_proto.kernels.source import ModelSource
from odsi_proto.wire.manifest import ModelManifest

Progress: TypeAlias = Callable[[str, int, int], None]
"""Told what is being done, how much of it, and how much there is."""


def no_progress(what: str, done: int, total: int) -> None:
    """For callers who do not show any."""


@contextmanager
def open_model(
    path: Path, manifest: Path | None, progress: Progress
) -> Iterator[tuple[ModelSource, ModelManifest]]:
    """The model and its manifest: the one given, the one kept with it, or one made by hashing it all."""
    with open_source(path) as source:
        yield (
            source,
            load_or_build(source, manifest, lambda done, total: progress("hashing model", done, total)),
        )
