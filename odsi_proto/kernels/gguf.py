"""A reader of GGUF model files (versions 2 and 3, little-endian) that trusts nothing in them.

The file is mapped, so opening costs its header and reading costs the tensors that are touched; a
metadata value is decoded when it is asked for. Whatever is wrong is a ``ModelError`` that names
the file and the key or tensor. One thing a mapping can not survive: a file that somebody shortens
while it is open.
"""

import struct
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from odsi_proto.kernels.gguf_header import ValueInfo, read_header
from odsi_proto.kernels.gguf_layout import BOOLEANS, HEADER_BYTES, INTEGERS, REALS, ValueType
from odsi_proto.kernels.mapping import map_file
from odsi_proto.kernels.source import ModelSource, TensorInfo

_LENGTH = struct.Struct("<Q")


class GgufFile(ModelSource):
    """An open model file: metadata decoded and checked, tensors as raw bytes."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._map = map_file(self.path)
        self._view = memoryview(self._map)
        try:
            self._header = read_header(self.path, self._view)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._view.release()
        with suppress(BufferError):
            self._map.close()

    @property
    def metadata(self) -> memoryview:
        """The key-value section as it lies in the file: hyper-parameters, vocabulary, chat template."""
        return self._view[HEADER_BYTES : self._header.values_end]

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the metadata values, in file order."""
        return tuple(self._header.values)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """By name, in file order."""
        return self._header.tensors

    def raw(self, name: str) -> memoryview:
        """The bytes of tensor ``name``."""
        info = self._header.tensors.get(name)
        if info is None:
            self.fail(f"tensor {name} is missing")
        return self._view[info.offset : info.offset + info.byte_count]

    @property
    def byte_count(self) -> int:
        """Bytes of the file."""
        return len(self._view)

    @property
    def title(self) -> str | None:
        """What the model calls itself."""
        return self.text("general.name")

    @property
    def chat_template(self) -> str | None:
        """The template of a conversation."""
        return self.text("tokenizer.chat_template")

    def name(self, key: str) -> str:
        """``key`` as errors name it."""
        return key

    # Metadata values: None for a missing key, an error for a value of another type.

    def integer(self, key: str) -> int | None:
        value = self._scalar(key, INTEGERS, "an integer")
        return None if value is None else int(value)

    def real(self, key: str) -> float | None:
        value = self._scalar(key, REALS, "a floating-point number")
        return None if value is None else float(value)

    def boolean(self, key: str) -> bool | None:
        value = self._scalar(key, BOOLEANS, "a boolean")
        return None if value is None else bool(value)

    def text(self, key: str) -> str | None:
        value = self._header.values.get(key)
        if value is None:
            return None
        if value.type is not ValueType.STRING or value.count is not None:
            self.fail(f"key {key} is {value}, expected a string")
        return self._string(key, value.offset)[0]

    def texts(self, key: str) -> list[str] | None:
        value = self._array(key, (ValueType.STRING,), "an array of strings")
        return None if value is None else list(self._strings(key, value))

    def integers(self, key: str) -> list[int] | None:
        value = self._array(key, INTEGERS, "an array of integers")
        if value is None or value.count is None:
            return None
        layout = INTEGERS[value.type]
        end = value.offset + value.count * layout.size
        return [item for (item,) in layout.iter_unpack(self._view[value.offset : end])]

    def array_length(self, key: str) -> int | None:
        """The number of items of an array, none of them decoded."""
        value = self._array(key, tuple(ValueType), "an array")
        return None if value is None else value.count

    def _scalar(
        self, key: str, accepted: Mapping[ValueType, struct.Struct], expected: str
    ) -> int | float | None:
        value = self._header.values.get(key)
        if value is None:
            return None
        layout = accepted.get(value.type)
        if layout is None or value.count is not None:
            self.fail(f"key {key} is {value}, expected {expected}")
        number: int | float = layout.unpack_from(self._view, value.offset)[0]
        return number

    def _array(self, key: str, accepted: Container[ValueType], expected: str) -> ValueInfo | None:
        value = self._header.values.get(key)
        if value is not None and (value.count is None or value.type not in accepted):
            self.fail(f"key {key} is {value}, expected {expected}")
        return value

    def _strings(self, key: str, value: ValueInfo) -> Iterator[str]:
        at = value.offset
        for _ in range(value.count or 0):
            text, at = self._string(key, at)
            yield text

    def _string(self, key: str, at: int) -> tuple[str, int]:
        """The string at ``at``, whose extent the header pass has checked, and where it ends."""
        start = at + _LENGTH.size
        end = start + int(_LENGTH.unpack_from(self._view, at)[0])
        try:
            return str(self._view[start:end], "utf-8"), end
        except UnicodeDecodeError:
            self.fail(f"key {key} holds text that is not UTF-8")
