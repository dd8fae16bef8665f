"""Where a step runs: in the event loop if it is alone and the last that ran was short, or with the worker."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from odsi_proto.errors import Malformed
from odsi_proto.node.execution import ExecutionQueue, Outcome
from odsi_proto.statemachine.effects import Run
from odsi_proto.units import Micros, Position, RequestId, Slack
from odsi_proto.wire.tensor import ActivationCodec

REQUEST = RequestId(bytes(16))


class Engine:
    """Notes the thread of each step; a position in ``fails`` can not be run."""

    def __init__(self, fails: Sequence[int] = ()) -> None:
        self.threads: dict[int, bool] = {}
        """By position: whether it ran in the event loop's thread."""
        self._fails = fails

    def step(self, request_id: bytes, *, first_position: int, **_: object) -> bytearray:
        self.threads[first_position] = threading.current_thread() is threading.main_thread()
        if first_position in self._fails:
            raise Malformed("no rows")
        return bytearray(4)


def run(position: int, *, count: int = 1) -> Run:
    return Run(
        request=REQUEST,
        position=Position(position),
        count=count,
        payload=memoryview(b""),
        codec_in=ActivationCodec.F32,
        codec_out=ActivationCodec.F32,
        rows_out_max=1,
        remaining_us=Micros(1),
        slack_us=Slack(1),
        is_droppable=False,
    )


async def execute(queue: ExecutionQueue, *runs: Run) -> list[Outcome]:
    """Start all in one turn of the loop, and wait for their answers."""
    answers = [asyncio.get_running_loop().create_future() for _ in runs]
    for effect, answer in zip(runs, answers, strict=True):
        queue.run(effect, answer.set_result)
    return await asyncio.gather(*answers)


def where(engine: Engine, *turns: Sequence[Run]) -> dict[int, bool]:
    async def main() -> None:
        queue = ExecutionQueue(engine, threads=1)  # type: ignore[arg-type]
        try:
            for runs in turns:
                await execute(queue, *runs)
        finally:
            queue.shut_down()

    asyncio.run(main())
    return engine.threads


def test_the_first_step_runs_with_the_worker_and_a_short_one_after_it_in_the_loop() -> None:
    assert where(Engine(), [run(0)], [run(1)]) == {0: False, 1: True}


def test_a_step_that_failed_says_nothing_of_how_long_one_takes() -> None:
    """It ended at once, and the next one ran in the loop however long it took."""
    assert where(Engine(fails=[0]), [run(0)], [run(1)]) == {0: False, 1: False}


def test_of_steps_that_start_in_one_turn_none_runs_in_the_loop() -> None:
    assert where(Engine(), [run(0)], [run(1), run(2)]) == {0: False, 1: False, 2: False}


@pytest.mark.parametrize("count", [2, 128])
def test_a_prompt_never_runs_in_the_loop(count: int) -> None:
    assert where(Engine(), [run(0)], [run(1, count=count)])[1] is False


def test_steps_are_answered_in_the_order_in_which_they_came() -> None:
    async def main() -> list[int]:
        queue = ExecutionQueue(Engine(), threads=1)  # type: ignore[arg-type]
        order: list[int] = []
        done = asyncio.Event()

        def answer(position: int) -> None:
            order.append(position)
            if len(order) == 5:
                done.set()

        await execute(queue, run(0))
        for position in range(1, 6):
            queue.run(run(position, count=1 + position % 2), lambda _, p=position: answer(p))  # type: ignore[misc]
        await done.wait()
        queue.shut_down()
        return order

    assert asyncio.run(main()) == [1, 2, 3, 4, 5]
