"""What a node and a client are told: plain values, from flags, a TOML file or a program."""

from dataclasses import dataclass
from pathlib import Path

from odsi_proto.limits import Limits
from odsi_proto.routing.path import Peer
from odsi_proto.units import LayerRange
from odsi_proto.wire.identity import Signer
from odsi_proto.wire.tensor import ActivationCodec, NumericProfile

CONGESTION = ("reno", "cubic", "delay")
"""Congestion controllers to choose from: aioquic's, and the one in ``node/congestion.py``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportConfig:
    """How a participant sends, over all its connections."""

    congestion: str = "reno"
    """One of ``CONGESTION``."""
    uplink_bytes_s: int | None = None
    """What leaves all connections together at most; None learns what bulk may take beside steps."""


DEFAULT_TRANSPORT = TransportConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """An execution node: which layers of which model it runs, where it listens, whom it dials."""

    model: Path
    """The GGUF file or the directory; only the tensors of ``layers`` are read."""
    layers: LayerRange
    signer: Signer
    """The hot key that the node signs and authenticates with."""
    host: str = "127.0.0.1"
    port: int = 0
    """UDP port; 0 lets the system choose."""
    manifest: Path | None = None
    """The model's manifest; by default the one kept with the model, or one made from it."""
    peers: tuple[Peer, ...] = ()
    """Nodes to stay connected to: activations are only ever sent to a connected participant."""
    threads: int = 1
    """Compute threads; two in one process give nothing in decode and collapse under load."""
    profile: NumericProfile = NumericProfile.FLOAT32
    """How the layers are computed; requests for another are refused."""
    kv_bytes_max: int = 1 << 30
    """Memory for the KV state of all requests; an OPEN that would pass it is refused."""
    metrics: tuple[str, int] | None = None
    """Host and TCP port to serve ``/metrics`` and ``/status`` on; port 0 lets the system choose."""
    transport: TransportConfig = DEFAULT_TRANSPORT
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """A client: the model whose embedding and head it runs, and how activations travel."""

    model: Path
    signer: Signer
    codec: ActivationCodec = ActivationCodec.F16
    """The codec asked for on every hop."""
    profile: NumericProfile = NumericProfile.FLOAT32
    """How every stage, and the client's own part, is to compute."""
    manifest: Path | None = None
    threads: int = 1
    transport: TransportConfig = DEFAULT_TRANSPORT
    limits: Limits = Limits()
