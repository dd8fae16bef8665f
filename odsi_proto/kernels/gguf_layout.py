"""The numbers of the GGUF format: value types, tensor types, and the bounds this reader sets.

Source: docs/gguf.md and ggml/src/ggml-common.h of the ggml project.
"""

import struct
from enum import IntEnum

from odsi_proto.kernels.source import TensorType

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT_DEFAULT = 32

HEADER_BYTES = 24
"""Magic, version, tensor count, key count; the key-value section follows."""

DIMENSIONS_MAX = 4

NAME_BYTES_MAX = 1_024
"""A key or tensor name: ggml stops at 64 bytes for tensors, and keys in use stay under 100."""

ENTRIES_MAX = 65_536
"""Keys, and tensors: a 128-layer model has some 40 of those and 1,200 of these."""

STRINGS_MAX = 4_194_304
"""Strings in all arrays together, because opening steps over each: a vocabulary of 256,000 tokens
has 800,000 with its merges."""


class ValueType(IntEnum):
    """How a metadata value is stored."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


INTEGERS = {
    ValueType.UINT8: struct.Struct("<B"),
    ValueType.INT8: struct.Struct("<b"),
    ValueType.UINT16: struct.Struct("<H"),
    ValueType.INT16: struct.Struct("<h"),
    ValueType.UINT32: struct.Struct("<I"),
    ValueType.INT32: struct.Struct("<i"),
    ValueType.UINT64: struct.Struct("<Q"),
    ValueType.INT64: struct.Struct("<q"),
}
REALS = {ValueType.FLOAT32: struct.Struct("<f"), ValueType.FLOAT64: struct.Struct("<d")}
BOOLEANS = {ValueType.BOOL: struct.Struct("<?")}
SCALARS = {**INTEGERS, **REALS, **BOOLEANS}


TENSOR_TYPES = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18),
    3: TensorType("Q4_1", 32, 20),
    6: TensorType("Q5_0", 32, 22),
    7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34),
    10: TensorType("Q2_K", 256, 84),
    11: TensorType("Q3_K", 256, 110),
    12: TensorType("Q4_K", 256, 144),
    13: TensorType("Q5_K", 256, 176),
    14: TensorType("Q6_K", 256, 210),
    16: TensorType("IQ2_XXS", 256, 66),
    17: TensorType("IQ2_XS", 256, 74),
    18: TensorType("IQ3_XXS", 256, 98),
    19: TensorType("IQ1_S", 256, 50),
    20: TensorType("IQ4_NL", 32, 18),
    21: TensorType("IQ3_S", 256, 110),
    22: TensorType("IQ2_S", 256, 82),
    23: TensorType("IQ4_XS", 256, 136),
    24: TensorType("I8", 1, 1),
    25: TensorType("I16", 1, 2),
    26: TensorType("I32", 1, 4),
    27: TensorType("I64", 1, 8),
    28: TensorType("F64", 1, 8),
    29: TensorType("IQ1_M", 256, 56),
    30: TensorType("BF16", 1, 2),
}
"""By ggml's number, the types that files hold: a size is enough to find a tensor and to hash it. Those
that can be computed with are ``source.COMPUTED_TYPES``."""
