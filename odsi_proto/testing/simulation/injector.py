"""Makes the faults of a plan happen, and ends them when the run heals."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from odsi_proto.testing.simulation.faults import CLOCK_RATE_PPM_MAX, Fault, FaultKind
from odsi_proto.testing.simulation.process import Process
from odsi_proto.testing.simulation.stage_process import StageProcess

if TYPE_CHECKING:
    from odsi_proto.testing.simulation.client_process import ClientProcess
    from odsi_proto.testing.simulation.link import Link
    from odsi_proto.testing.simulation.port import Port
    from odsi_proto.testing.simulation.world import World

NOTICE_US_MAX = 1_000
"""Both ends of a connection that ends noticeably are told within so much."""

_K = FaultKind


class Injector:
    """The one who breaks things."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._random = world.stream("injector")
        self._ends: dict[int, Callable[[], object]] = {}
        """What ends each fault that lasts."""
        self._count = 0

    def schedule(self, plan: tuple[Fault, ...]) -> None:
        """Let every fault happen at its instant."""
        for fault in plan:
            self._world.heap.at(fault.at_us, self._apply, fault)

    def heal(self) -> None:
        """End everything that lasts; nothing goes wrong from here on."""
        ends, self._ends = list(self._ends.values()), {}
        for end in ends:
            end()
        for process in self._world.processes.values():
            process.duplicates.clear()
            for port in process.ports.values():
                port.reset_next = None

    def _apply(self, fault: Fault) -> None:
        world = self._world
        process = world.processes.get(fault.target)
        if world.is_healed or process is None:
            return
        world.log.note(world.heap.now_us, fault.target, "fault", str(fault), peer=fault.peer)
        world.coverage.fault_kinds.add(fault.kind)
        if fault.peer:
            self._apply_to_link(fault, process)
        elif isinstance(process, StageProcess) and self._apply_to_stage(fault, process):
            pass
        else:
            self._apply_to_process(fault, process)

    def _apply_to_process(self, fault: Fault, process: Process) -> None:
        world = self._world
        match fault.kind:
            case _K.CRASH:
                if process.is_up:
                    process.crash()
            case _K.CRASH_AND_RESTART:
                if process.is_up:
                    process.crash()
                    self._lasts(fault, process.restart)
            case _K.PAUSE:
                if process.is_up and not process.is_paused:
                    process.pause()
                    self._lasts(fault, process.resume)
            case _K.CLOCK_RATE:
                before_ppm = process.clock.rate_ppm
                ppm = max(-CLOCK_RATE_PPM_MAX, min(CLOCK_RATE_PPM_MAX, fault.amount))
                process.set_clock_rate(ppm)
                self._lasts(fault, lambda: process.set_clock_rate(before_ppm))
            case _K.CLOCK_JUMP:
                process.jump_clock(max(0, fault.amount))
            case _K.SLOW_CONSUMER:
                process.read_late_us = max(0, fault.amount)
                self._lasts(fault, lambda: setattr(process, "read_late_us", 0))
            case _K.DUPLICATE_STEP:
                process.duplicates += [fault.for_us] * max(1, fault.amount)
            case _K.CANCEL_AT:
                client: ClientProcess
                client = next(each for each in world.clients if each is process)
                process.deliver(client.cancel_all)
            case _:
                pass  # a rogue is one from its start; faults of stages come to no other process

    def _apply_to_stage(self, fault: Fault, stage: StageProcess) -> bool:
        """Whether the fault is one that only stages have."""
        executor = stage.executor
        match fault.kind:
            case _K.STRAGGLER:
                executor.times_slower = max(1, fault.amount)
                self._lasts(fault, lambda: setattr(executor, "times_slower", 1))
            case _K.COMPUTE_FAILURE:
                executor.failures += max(1, fault.amount)
            case _K.EXECUTOR_SILENT:
                executor.is_silent = True
                self._lasts(fault, executor.heal)
            case _K.RESERVE_REFUSED:
                executor.refuses = True
                self._lasts(fault, lambda: setattr(executor, "refuses", False))
            case _K.RESERVE_SLOW:
                executor.reserve_late_us = max(0, fault.amount)
                self._lasts(fault, lambda: setattr(executor, "reserve_late_us", 0))
            case _K.DRAIN:
                stage.deliver(stage.drain)
            case _:
                return False
        return True

    def _apply_to_link(self, fault: Fault, process: Process) -> None:
        world = self._world
        links = [world.link(fault.target, fault.peer)]
        match fault.kind:
            case _K.PARTITION_ONE_WAY | _K.PARTITION_TWO_WAY:
                if fault.kind is _K.PARTITION_TWO_WAY:
                    links.append(world.link(fault.peer, fault.target))
                self._count += 1
                cause = f"cut {self._count}"
                for link in links:
                    link.cut(cause)
                self._lasts(fault, lambda: _heal(links, cause))
            case _K.CONNECTION_LOSS_NOTICED:
                for port in self._ports(process, fault.peer):
                    for end in (port, port.peer):
                        notice_us = self._random.randint(0, NOTICE_US_MAX)
                        world.heap.after(notice_us, end.lose, "the network ended it")
            case _K.CONNECTION_LOSS_SILENT:
                for port in self._ports(process, fault.peer):
                    for end in (port, port.peer):
                        end.is_deaf = True
                        end.mute("lost")
            case _K.STREAM_RESET:
                for port in self._ports(process, fault.peer):
                    port.reset_next = max(0, fault.amount)
            case _:
                pass  # of a node, with a peer that it does not need

    def _ports(self, process: Process, peer: str) -> "list[Port]":
        return [port for port in process.ports.values() if port.peer.process.name == peer]

    def _lasts(self, fault: Fault, end: Callable[[], object]) -> None:
        """End it after its time, or when the run heals."""
        self._count += 1
        number = self._count

        def over() -> None:
            if self._ends.pop(number, None) is not None:
                end()

        self._ends[number] = end
        self._world.heap.after(fault.for_us, over)


def _heal(links: "list[Link]", cause: str) -> None:
    for link in links:
        link.heal(cause)
