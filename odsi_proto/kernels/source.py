"""What every format of model file offers: tensors under one naming scheme, and the metadata beside them.

The names are GGUF's: ``token_embd.weight``, ``blk.N.attn_q.weight``, ``output_norm.weight`` and so
on. A format with names of its own maps them when it opens. Nothing here needs torch, so that a
model's measures can be read without waiting for it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from odsi_proto.errors import ModelError

EMBEDDING = "token_embd.weight"
FINAL_NORM = "output_norm.weight"
HEAD = "output.weight"
ROPE_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True, slots=True)
class TensorType:
    """How a tensor's values are packed."""

    name: str
    block_values: int
    """Values in a block; a row is a whole number of blocks."""
    block_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """What one tensor is and where it lies."""

    name: str
    shape: tuple[int, ...]
    """Outermost dimension first, as torch has it; GGUF has them the other way round."""
    type: TensorType
    offset: int
    """From the start of the file that holds the tensor."""
    byte_count: int


COMPUTED_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q4_K", "Q6_K")
"""The packings that can be computed with; ``quants`` has the function for each."""


class ModelSource(ABC):
    """An open model and a context manager."""

    path: Path
    """The file, or the directory of a model that is several files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Let go of the files; while a caller still holds the view of a tensor, its mapping stays for it."""

    @property
    @abstractmethod
    def metadata(self) -> memoryview:
        """Everything but the tensors that decides an answer: what the manifest hashes."""

    @property
    @abstractmethod
    def tensors(self) -> Mapping[str, TensorInfo]:
        """By name, in the order of the manifest."""

    @abstractmethod
    def raw(self, name: str) -> memoryview:
        """The bytes of tensor ``name``; ``ModelError`` if there is none."""

    @property
    @abstractmethod
    def byte_count(self) -> int:
        """Bytes of the files that hold the tensors."""

    @property
    @abstractmethod
    def title(self) -> str | None:
        """What the model calls itself."""

    @property
    @abstractmethod
    def chat_template(self) -> str | None:
        """The template that puts a conversation into the form the model was trained on."""

    def fail(self, what: str) -> NoReturn:
        """Raise the ``ModelError`` that names this model."""
        raise ModelError(f"{self.path}: {what}")
