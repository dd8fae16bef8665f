"""aioquic's reno, with a count of what was lost: aioquic itself keeps none."""

from collections.abc import Iterable

from aioquic.quic.congestion.base import register_congestion_control
from aioquic.quic.congestion.reno import RenoCongestionControl
from aioquic.quic.packet_builder import QuicSentPacket

COUNTED_RENO = "odsi-counted-reno"
"""Its name in aioquic's table of controllers."""


class CountedReno(RenoCongestionControl):
    """Behaves as its parent."""

    lost_packets = 0
    lost_bytes = 0

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        """Count, and go on."""
        lost = tuple(packets)
        self.lost_packets += len(lost)
        self.lost_bytes += sum(packet.sent_bytes for packet in lost)
        super().on_packets_lost(now=now, packets=lost)


register_congestion_control(COUNTED_RENO, CountedReno)
