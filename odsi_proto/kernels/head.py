"""The client's part of a model: token ids to rows at the beginning, a row to logits at the end."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from odsi_proto.errors import LocalProtocolError
from odsi_proto.kernels.config import ModelConfig
from odsi_proto.kernels.hyperparameters import read_config
from odsi_proto.kernels.llama import RmsNorm
from odsi_proto.kernels.manifest import verify_tensors
from odsi_proto.kernels.quants import load_tensor
from odsi_proto.kernels.roles import check_client
from odsi_proto.kernels.source import EMBEDDING, FINAL_NORM, HEAD, ModelSource
from odsi_proto.wire.manifest import ModelManifest


class ClientModel:
    """Embedding, final norm and head. Not thread-safe."""

    def __init__(self, config: ModelConfig, embedding: Tensor, norm: RmsNorm, head: Tensor) -> None:
        self.config = config
        self._embedding = embedding
        self._norm = norm
        self._head = head

    @classmethod
    def load(cls, source: ModelSource, manifest: ModelManifest | None) -> Self:
        """Read, check and unpack the client's tensors; raises ``ModelError``.

        Both matrices are kept [width, vocabulary], as in ``llama``; a tied pair is one matrix.
        """
        config = read_config(source)
        names = check_client(source, config)
        if manifest is not None:
            verify_tensors(source, manifest, names)
        embedding = load_tensor(source, EMBEDDING).t().contiguous()
        head = embedding if config.tied_head else load_tensor(source, HEAD).t().contiguous()
        return cls(config, embedding, RmsNorm(load_tensor(source, FINAL_NORM), config.norm_epsilon), head)

    def embed(self, token_ids: Sequence[int]) -> Tensor:
        """The float32 rows [count, width] of ``token_ids``."""
        if not token_ids:
            raise LocalProtocolError("no tokens to embed")
        if min(token_ids) < 0 or max(token_ids) >= self.config.vocabulary:
            raise LocalProtocolError(f"token ids must be 0 to {self.config.vocabulary - 1}")
        with torch.inference_mode():
            return self._embedding.index_select(1, torch.tensor(token_ids)).t().contiguous()

    def logits(self, row: Tensor) -> Tensor:
        """The float32 logits [vocabulary] that follow ``row``, [width] or [1, width]."""
        with torch.inference_mode():
            return torch.mm(self._norm(row.view(1, -1)), self._head)[0]
