"""The client's part of a model: token ids to rows at the beginning, rows to logits at the end."""

from collections.abc import Sequence
from typing import Self

from torch import Tensor

from odsi_proto.errors import LocalProtocolError
from odsi_proto.kernels.backend import HeadBackend, usable_threads
from odsi_proto.kernels.config import ModelConfig
from odsi_proto.kernels.hyperparameters import read_config
from odsi_proto.kernels.manifest import verify_tensors
from odsi_proto.kernels.roles import check_client
from odsi_proto.kernels.select import BackendKind, make_head, select
from odsi_proto.kernels.source import ModelSource
from odsi_proto.kernels.weights import load_head
from odsi_proto.wire.manifest import ModelManifest
from odsi_proto.wire.tensor import NumericProfile


class ClientModel:
    """Embedding, final norm and head. Not thread-safe."""

    def __init__(self, config: ModelConfig, backend: HeadBackend) -> None:
        self.config = config
        self.backend = backend

    @classmethod
    def load(
        cls,
        source: ModelSource,
        manifest: ModelManifest | None,
        *,
        profile: NumericProfile = NumericProfile.FLOAT32,
        backend: BackendKind | None = None,
        threads: int = 1,
    ) -> Self:
        """Read, check and unpack the client's tensors; raises ``ModelError``."""
        config = read_config(source)
        names = check_client(source, config)
        choice = select(config, profile, backend)
        if manifest is not None:
            verify_tensors(source, manifest, names)
        return cls(
            config,
            make_head(choice, config, load_head(source, config), profile, threads=usable_threads(threads)),
        )

    def embed(self, token_ids: Sequence[int]) -> Tensor:
        """The float32 rows [count, width] of ``token_ids``."""
        if not token_ids:
            raise LocalProtocolError("no tokens to embed")
        if min(token_ids) < 0 or max(token_ids) >= self.config.vocabulary:
            raise LocalProtocolError(f"token ids must be 0 to {self.config.vocabulary - 1}")
        return self.backend.embed(token_ids)

    def logits(self, row: Tensor) -> Tensor:
        """The float32 logits [vocabulary] that follow ``row``, [width] or [1, width]."""
        return self.logits_of(row.view(1, -1))[0]

    def logits_of(self, rows: Tensor) -> Tensor:
        """The float32 logits [count, vocabulary] that follow each of ``rows`` [count, width].

        Raises ``LocalProtocolError`` if they have another width.
        """
        if rows.dim() != 2 or rows.shape[1] != self.config.width:
            raise LocalProtocolError(f"rows of shape {tuple(rows.shape)}, expected width {self.config.width}")
        return self.backend.logits(rows.float())
