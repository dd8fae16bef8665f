"""Public helpers for testing ODSI: use them as you would ``trio.testing``."""

from odsi_proto.testing.network import MemoryNetwork, make_signer
from odsi_proto.testing.relay import UdpRelay

__all__ = ["MemoryNetwork", "UdpRelay", "make_signer"]
