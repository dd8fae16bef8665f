"""A reader of safetensors files that trusts nothing in them.

Eight bytes say how long the header is, the header is a JSON object that says what each tensor is
and where it lies, and the tensors follow. The file is mapped, as in ``gguf``. Whatever is wrong is
a ``ModelError`` that names the file and the tensor. Format: github.com/huggingface/safetensors.
"""

import math
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from odsi_proto.errors import ModelError
from odsi_proto.kernels.json_text import parse_object
from odsi_proto.kernels.mapping import map_file
from odsi_proto.kernels.source import TensorInfo, TensorType

HEADER_BYTES_MAX = 16 << 20
"""Some 200 bytes a tensor for ``TENSORS_MAX`` of them. The format's own reader takes 100 MB, which
parsed are gigabytes."""

TENSORS_MAX = 65_536
"""As many as a manifest has."""

NAME_BYTES_MAX = 1_024
DIMENSIONS_MAX = 4

METADATA_KEY = "__metadata__"
"""Free text of whoever wrote the file; it decides nothing."""

TYPES = {
    name: TensorType(name, 1, size)
    for name, size in {
        "F32": 4,
        "F16": 2,
        "BF16": 2,
        "F64": 8,
        "F8_E4M3": 1,
        "F8_E5M2": 1,
        "I64": 8,
        "I32": 4,
        "I16": 2,
        "I8": 1,
        "U64": 8,
        "U32": 4,
        "U16": 2,
        "U8": 1,
        "BOOL": 1,
    }.items()
}
"""By the format's name. A size is enough to find a tensor; the first three can be computed with."""

_LENGTH = struct.Struct("<Q")


class SafetensorsFile:
    """One open file: tensors as raw bytes, under the names that the file has for them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map = map_file(path)
        self._view = memoryview(self._map)
        try:
            self.tensors: Mapping[str, TensorInfo] = _read_header(path, self._view)
            """By name, in the order in which they lie."""
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file; while a caller still holds the view of a tensor, the mapping stays for it."""
        self._view.release()
        with suppress(BufferError):
            self._map.close()

    @property
    def byte_count(self) -> int:
        """Bytes of the file."""
        return len(self._view)

    def raw(self, info: TensorInfo) -> memoryview:
        """The bytes of one of this file's tensors."""
        return self._view[info.offset : info.offset + info.byte_count]


def _read_header(path: Path, view: memoryview) -> dict[str, TensorInfo]:
    def fail(what: str) -> NoReturn:
        raise ModelError(f"{path}: {what}")

    if len(view) < _LENGTH.size:
        fail(f"not a safetensors file: it has {len(view)} bytes, the length of the header alone takes 8")
    header_bytes = int(_LENGTH.unpack_from(view)[0])
    data_start = _LENGTH.size + header_bytes
    if header_bytes > HEADER_BYTES_MAX:
        fail(f"the header has {header_bytes} bytes, expected at most {HEADER_BYTES_MAX}")
    if data_start > len(view):
        fail(f"the header ends at byte {data_start}, but the file has {len(view)} (truncated?)")
    header = parse_object(bytes(view[_LENGTH.size : data_start]), path, "the header")
    metadata = header.pop(METADATA_KEY, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        fail(f"{METADATA_KEY} is not an object of strings")
    if len(header) > TENSORS_MAX:
        fail(f"{len(header)} tensors, expected at most {TENSORS_MAX}")
    entries = [_Entry(path, name, value) for name, value in header.items()]
    tensors = {}
    at = 0
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != at:
            fault = "overlaps the tensor before it" if entry.begin < at else "leaves a gap before it"
            entry.fail(f"begins at byte {entry.begin} of the data and {fault}, expected {at}")
        at = entry.end
        tensors[entry.name] = entry.info(data_start, len(view))
    if data_start + at != len(view):
        fail(f"the tensors end at byte {data_start + at}, but the file has {len(view)}")
    return tensors


class _Entry:
    """One tensor as the header states it, its numbers checked against each other."""

    def __init__(self, path: Path, name: str, value: Any) -> None:
        self._path = path
        self.name = name
        # Read on: a name that is not printable stands in no message.
        if not name.isprintable() or not name or len(name.encode()) > NAME_BYTES_MAX:
            raise ModelError(
                f"{path}: tensor name {name!a:.100} is not 1 to {NAME_BYTES_MAX} printable bytes"
            )
        if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
            self.fail("is not an object of dtype, shape and data_offsets")
        dtype = value["dtype"]
        if not isinstance(dtype, str) or dtype not in TYPES:
            self.fail(f"has dtype {str(dtype)!a:.100}, expected one of {', '.join(TYPES)}")
        self._type = TYPES[dtype]
        self._shape = self._integers("shape", value["shape"])
        if not 1 <= len(self._shape) <= DIMENSIONS_MAX or 0 in self._shape:
            self.fail(f"has shape {list(self._shape)}, expected 1 to {DIMENSIONS_MAX} dimensions above 0")
        offsets = self._integers("data_offsets", value["data_offsets"])
        if len(offsets) != 2:
            self.fail(f"has {len(offsets)} data_offsets, expected 2")
        self.begin, self.end = offsets
        self._byte_count = math.prod(self._shape) * self._type.block_bytes
        if self.end - self.begin != self._byte_count:
            self.fail(
                f"lies at bytes {self.begin} to {self.end} of the data, "
                f"but its shape and dtype make {self._byte_count} bytes"
            )

    def info(self, data_start: int, file_bytes: int) -> TensorInfo:
        """The tensor, if it lies inside the file."""
        if data_start + self.end > file_bytes:
            self.fail(f"ends at byte {data_start + self.end}, but the file has {file_bytes} (truncated?)")
        return TensorInfo(
            name=self.name,
            shape=self._shape,
            type=self._type,
            offset=data_start + self.begin,
            byte_count=self._byte_count,
        )

    def fail(self, what: str) -> NoReturn:
        raise ModelError(f"{self._path}: tensor {self.name} {what}")

    def _integers(self, key: str, value: Any) -> tuple[int, ...]:
        if not isinstance(value, list) or len(value) > DIMENSIONS_MAX:
            self.fail(f"has a {key} that is not a list of at most {DIMENSIONS_MAX}")
        for item in value:
            if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item < 1 << 63:
                self.fail(f"has {str(item)[:40]!a} in its {key}, expected integers from 0 to 2**63 - 1")
        return tuple(value)
