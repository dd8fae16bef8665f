"""Public helpers for testing ODSI: use them as you would ``trio.testing``."""

from odsi_proto.testing.network import MemoryNetwork, make_signer

__all__ = ["MemoryNetwork", "make_signer"]
