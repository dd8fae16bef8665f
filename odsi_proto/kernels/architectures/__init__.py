"""The architectures that can be read. One more is a file here and a line in the table."""

from collections.abc import Mapping

from odsi_proto.kernels.architectures.base import Architecture
from odsi_proto.kernels.architectures.llama import LLAMA
from odsi_proto.kernels.architectures.qwen2 import QWEN2
from odsi_proto.kernels.architectures.qwen3 import QWEN3

ARCHITECTURES: Mapping[str, Architecture] = {entry.name: entry for entry in (LLAMA, QWEN2, QWEN3)}
