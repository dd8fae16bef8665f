"""The model manifest: what a model file holds, under one Merkle root that names the model on the wire.

Leaf 0 is the model's own head: architecture, number of layers, embedding width, and the digest of
the file's metadata, which covers every hyper-parameter, the vocabulary and the chat template. One
leaf for each tensor follows, in the order of the format. A node that holds a few layers hashes only those
tensors, and proves each against the root.

The sidecar is the same as JSON text for people and tools; its root is stated and recomputed.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn, TypeGuard

from odsi_proto.errors import ModelError
from odsi_proto.wire import cbor, merkle

HEAD_TAG = "odsi/1 model"
TENSOR_TAG = "odsi/1 tensor"
SIDECAR_FORMAT = "odsi-manifest/1"

TENSORS_MAX = 65_536
"""As many as the file reader accepts."""

DIMENSIONS_MAX = 4
NAME_BYTES_MAX = 1_024
NUMBER_MAX = 2**63 - 1

SIDECAR_BYTES_MAX = 32 << 20
"""Some 400 bytes a tensor for ``TENSORS_MAX`` tensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEntry:
    """One tensor of a model."""

    name: str
    shape: tuple[int, ...]
    """Outermost dimension first."""
    type: str
    """GGML's name of the packing, such as ``Q4_1``."""
    byte_count: int
    sha256: bytes
    """Of the bytes as they lie in the file."""

    @property
    def leaf_hash(self) -> bytes:
        body = (TENSOR_TAG, self.name, self.shape, self.type, self.byte_count, self.sha256)
        return merkle.leaf_hash(cbor.encode(body))


@dataclass(frozen=True, slots=True, kw_only=True)
class InclusionProof:
    """That a tensor is a leaf of the tree under a root."""

    index: int
    """Of the leaf; leaf 0 is the head, so a tensor's is at least 1."""
    size: int
    """Leaves in the tree."""
    siblings: tuple[bytes, ...]
    """From the leaf up."""


@dataclass(frozen=True, kw_only=True)
class ModelManifest:
    """All tensors of a model and what it says of itself. Without slots: its hashes are kept once computed."""

    architecture: str
    layers_count: int
    width: int
    """Values in an activation row."""
    metadata_sha256: bytes
    tensors: tuple[TensorEntry, ...]
    """In the order of the format, names unique."""

    @cached_property
    def root(self) -> bytes:
        """The digest that names the model."""
        return merkle.root(self._leaf_hashes)

    @cached_property
    def _leaf_hashes(self) -> tuple[bytes, ...]:
        head = (HEAD_TAG, self.architecture, self.layers_count, self.width, self.metadata_sha256)
        return (merkle.leaf_hash(cbor.encode(head)), *(entry.leaf_hash for entry in self.tensors))

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {entry.name: index for index, entry in enumerate(self.tensors)}

    def entry(self, name: str) -> TensorEntry | None:
        index = self._indices.get(name)
        return None if index is None else self.tensors[index]

    def prove(self, name: str) -> InclusionProof:
        """That tensor ``name``, which must be in the manifest, belongs to the model."""
        leaf = self._indices[name] + 1
        hashes = self._leaf_hashes
        return InclusionProof(index=leaf, size=len(hashes), siblings=merkle.inclusion_proof(hashes, leaf))


def verify(entry: TensorEntry, proof: InclusionProof, root: bytes) -> bool:
    """Whether ``proof`` shows ``entry`` to be a tensor of the model that ``root`` names."""
    if proof.index < 1:
        return False
    found = merkle.root_from_proof(entry.leaf_hash, index=proof.index, size=proof.size, proof=proof.siblings)
    return found == root


def to_sidecar(manifest: ModelManifest) -> str:
    """The manifest as JSON text: the same manifest, the same text; one line a tensor."""
    head = {
        "format": SIDECAR_FORMAT,
        "root": manifest.root.hex(),
        "architecture": manifest.architecture,
        "layers": manifest.layers_count,
        "width": manifest.width,
        "metadata_sha256": manifest.metadata_sha256.hex(),
    }
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    rows = ",\n".join(f"    {json.dumps(_row(entry))}" for entry in manifest.tensors)
    return "\n".join(["{", *lines, '  "tensors": [', rows, "  ]", "}", ""])


def from_sidecar(text: str, source: str) -> ModelManifest:
    """The manifest that ``text`` holds; raises ``ModelError`` naming ``source`` and the field."""
    if len(text) > SIDECAR_BYTES_MAX:
        raise ModelError(f"{source}: {len(text)} characters, expected at most {SIDECAR_BYTES_MAX}")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{source}: not JSON: {error}") from error
    body = _Fields(value, source, "the manifest")
    if (found := body.text("format")) != SIDECAR_FORMAT:
        raise ModelError(f"{source}: format {found!r}, expected {SIDECAR_FORMAT!r}")
    rows = body.items("tensors", TENSORS_MAX)
    manifest = ModelManifest(
        architecture=body.text("architecture"),
        layers_count=body.number("layers"),
        width=body.number("width"),
        metadata_sha256=body.digest("metadata_sha256"),
        tensors=tuple(_entry(_Fields(row, source, f"tensor {index}")) for index, row in enumerate(rows)),
    )
    if len({entry.name for entry in manifest.tensors}) != len(manifest.tensors):
        raise ModelError(f"{source}: two tensors have the same name")
    if (stated := body.digest("root")) != manifest.root:
        raise ModelError(f"{source}: states root {stated.hex()}, its content has {manifest.root.hex()}")
    return manifest


def _row(entry: TensorEntry) -> dict[str, object]:
    return {
        "name": entry.name,
        "shape": list(entry.shape),
        "type": entry.type,
        "bytes": entry.byte_count,
        "sha256": entry.sha256.hex(),
    }


def _entry(row: "_Fields") -> TensorEntry:
    return TensorEntry(
        name=row.text("name"),
        shape=tuple(row.numbers("shape", DIMENSIONS_MAX)),
        type=row.text("type"),
        byte_count=row.number("bytes"),
        sha256=row.digest("sha256"),
    )


class _Fields:
    """A JSON object read field by field; what does not fit is a ``ModelError`` naming source and field."""

    def __init__(self, value: object, source: str, what: str) -> None:
        self._source = source
        self._what = what
        if not isinstance(value, dict):
            raise ModelError(f"{source}: {what} is not a JSON object")
        self._value = value

    def text(self, key: str) -> str:
        value = self._value.get(key)
        if not isinstance(value, str) or not value.isprintable() or len(value.encode()) > NAME_BYTES_MAX:
            self._fail(key, f"printable text of at most {NAME_BYTES_MAX} bytes")
        return value

    def digest(self, key: str) -> bytes:
        value = self._value.get(key)
        if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
            self._fail(key, "64 hexadecimal digits")
        return bytes.fromhex(value)

    def number(self, key: str) -> int:
        value = self._value.get(key)
        if not _is_number(value):
            self._fail(key, f"an integer from 0 to {NUMBER_MAX}")
        return value

    def numbers(self, key: str, count_max: int) -> Iterator[int]:
        for value in self.items(key, count_max):
            if not _is_number(value):
                self._fail(key, f"integers from 0 to {NUMBER_MAX}")
            yield value

    def items(self, key: str, count_max: int) -> list[object]:
        value = self._value.get(key)
        if not isinstance(value, list) or len(value) > count_max:
            self._fail(key, f"a list of at most {count_max}")
        return value

    def _fail(self, key: str, expected: str) -> NoReturn:
        raise ModelError(f"{self._source}: {self._what}: {key} is not {expected}")


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= NUMBER_MAX
