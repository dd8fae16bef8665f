"""Controllers side by side over simulated bottlenecks: ``python -m bench.deadlines.flow_table``.

A message of 8 KB every 20 ms, due within 30 ms, beside bulk, for 30 s: the share of the link that was
used, and messages that came late or never; those of them that had lost a packet stand in brackets. No
seed is chosen: the first three, summed.
"""

import sys
from collections.abc import Callable, Sequence
from time import perf_counter

from aioquic.quic.congestion.base import create_congestion_control

import odsi_proto.node.congestion  # noqa: F401  # registers itself
from bench.command import guarded, names, show
from bench.deadlines.bottleneck import HEADER_BYTES, Path
from bench.deadlines.flow import PACKET_BYTES, Packet, Source
from bench.deadlines.flows import Simulation, fairness

CONTROLLERS = ("delay", "reno", "cubic")
SECONDS = 30.0
SEEDS = (1, 2, 3)
MESSAGE_BYTES = 8192
BASE_S = 0.020

Make = Callable[[str, int], list[Source]]


def same_connection(controller: str, seed: int) -> list[Source]:
    """Messages and bulk of one connection. What is no chance on a path is where a message falls."""
    return [Source(controller=controller, message_bytes=MESSAGE_BYTES, start_s=seed * 0.007)]


def other_connections(count: int) -> Make:
    """Messages of one connection, bulk of several others, that start one after another."""

    def make(controller: str, seed: int) -> list[Source]:
        messages = Source(controller=controller, bulk=False, message_bytes=MESSAGE_BYTES)
        bulk = [Source(controller=controller, start_s=1 + seed * 0.03 * each) for each in range(count)]
        return [messages, *bulk]

    return make


def paths() -> list[tuple[str, Path]]:
    """The paths of the first two tables: 100 Mbit/s and 20 ms, unless they say something else."""
    rate = Path().rate_bytes_s
    slow = 2.5e6
    return [
        *((f"FIFO {ms} ms", Path(buffer_bytes=rate * ms / 1000)) for ms in (1, 2, 5, 10, 40)),
        ("CoDel", Path(codel=True)),
        *((f"policer, {kb} KB", Path(policer_bytes=kb * 1000)) for kb in (20, 60, 125)),
        ("20 Mbit/s, FIFO 2 ms", Path(rate_bytes_s=slow, buffer_bytes=slow * 0.002)),
        ("20 Mbit/s, FIFO 20 ms", Path(rate_bytes_s=slow, buffer_bytes=slow * 0.020)),
        ("20 Mbit/s, policer, 60 KB", Path(rate_bytes_s=slow, policer_bytes=60_000)),
        *((f"{loss:.1%} random loss", Path(loss=loss)) for loss in (0.001, 0.01, 0.015, 0.03)),
        ("1 % loss in runs of 5", Path(loss=0.01, loss_run=5)),
        *(
            (f"jitter up to {ms} ms, FIFO 10 ms", Path(jitter_s=ms / 1000, buffer_bytes=rate / 100))
            for ms in (1, 5, 10)
        ),
    ]


def measure(path: Path, make: Make, controller: str) -> str:
    """One cell: use, missed, and of those with a lost packet."""
    most = path.rate_bytes_s * SECONDS * PACKET_BYTES / (PACKET_BYTES + HEADER_BYTES) * len(SEEDS)
    used = messages = missed = unlost = 0
    for seed in SEEDS:
        for result in Simulation(path, make(controller, seed), seed=seed).run(SECONDS):
            used += result.delivered_bytes
            messages += result.messages
            missed += result.missed
            unlost += result.missed_unlost
    return f"{used / most:.0%}, {missed / messages:.2%} ({missed - unlost})"


def print_side_by_side(title: str, make: Make) -> None:
    """A row for each path, a column for each controller."""
    show([f"\n| {title} | " + " | ".join(CONTROLLERS) + " |\n| --- |" + " --- |" * len(CONTROLLERS)])
    for name, path in paths():
        cells = [measure(path, make, controller) for controller in CONTROLLERS]
        show([f"| {name} | " + " | ".join(cells) + " |"])


def print_shares() -> None:
    """What one of ours gets beside others, and how fair several of ours are."""
    show(
        ["\n| one of ours beside | " + " | ".join(f"FIFO {ms} ms" for ms in (2, 5, 10, 20, 40)) + " | fair |"]
    )
    show(["| --- |" + " --- |" * 6])
    for others in (["reno"], ["cubic"], ["reno"] * 3, ["cubic"] * 3):
        cells = []
        for ms in (2, 5, 10, 20, 40):
            sources = [Source(), *(Source(controller=other) for other in others)]
            path = Path(buffer_bytes=Path().rate_bytes_s * ms / 1000)
            got = [each.delivered_between(5, 60) for each in Simulation(path, sources).run(60)]
            cells.append(f"{got[0] / sum(got):.0%}")
        name = f"{len(others)} {others[0]}"
        show([f"| {name} | " + " | ".join(cells) + f" | {1 / (1 + len(others)):.0%} |"])


def print_fairness() -> None:
    """Several of ours, one starting each second."""
    show(
        ["\n| flows of ours | fairness | link used | queue, median | 99 % |\n| --- | --- | --- | --- | --- |"]
    )
    for mbit_s in (10, 20, 100):
        for count in (1, 2, 4, 8):
            path = Path(rate_bytes_s=mbit_s * 125_000)
            sources = [Source(start_s=each) for each in range(count)]
            results = Simulation(path, sources, sample_s=0.02).run(40)
            got = [each.delivered_between(20, 40) for each in results]
            most = path.rate_bytes_s * 20 * PACKET_BYTES / (PACKET_BYTES + HEADER_BYTES)
            queues = sorted(sample.queue_s for sample in results[0].samples if sample.at_s > 20)
            half, most_of = (queues[int(part * (len(queues) - 1))] * 1000 for part in (0.5, 0.99))
            row = f"{fairness(got):.3f} | {sum(got) / most:.1%} | {half:.1f} ms | {most_of:.1f} ms"
            show([f"| {count}, {mbit_s} Mbit/s | {row} |"])


def print_cost() -> None:
    """Nanoseconds for a packet sent and acknowledged, best of five runs of 20,000."""
    show(["\n| packets in an acknowledgement | " + " | ".join(CONTROLLERS) + " |\n| --- | --- | --- | --- |"])
    for together in (1, 2, 10):
        cells = [f"{min(_cost(name, together) for _ in range(5)) * 1e9:.0f} ns" for name in CONTROLLERS]
        show([f"| {together} | " + " | ".join(cells) + " |"])


def _cost(name: str, together: int) -> float:
    controller = create_congestion_control(name, max_datagram_size=PACKET_BYTES)
    acks = [[Packet(0, 0.0, PACKET_BYTES, None) for _ in range(together)] for _ in range(20_000 // together)]
    now, began = 10.0, perf_counter()
    for packets in acks:
        now += 0.001
        for packet in packets:
            packet.sent_time = now
            controller.on_packet_sent(packet=packet)
        for packet in packets:
            controller.on_packet_acked(now=now + BASE_S, packet=packet)
        controller.on_rtt_measurement(now=now + BASE_S, rtt=BASE_S + now * 1000 % 7 * 1e-4)
    return (perf_counter() - began) / 20_000


def main(arguments: Sequence[str]) -> int:
    """All tables, or those named; 2 for one that there is not."""
    tables = {
        "same": lambda: print_side_by_side("same connection", same_connection),
        "four": lambda: print_side_by_side("4 other connections", other_connections(4)),
        "eight": lambda: print_side_by_side("8 other connections", other_connections(8)),
        "shares": print_shares,
        "fairness": print_fairness,
        "cost": print_cost,
    }

    def run() -> None:
        for name in names(",".join(arguments), tables, "table") if arguments else tables:
            tables[name]()

    return guarded("bench.deadlines.flow_table", run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
