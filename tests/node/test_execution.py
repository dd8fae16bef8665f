"""Where pieces run, in the event loop or with the worker, and what steps are answered."""

import asyncio
import threading
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch

from odsi_proto.errors import LocalProtocolError
from odsi_proto.kernels.backend import Stability
from odsi_proto.kernels.engine import StageStep
from odsi_proto.limits import Limits
from odsi_proto.node.compute import Outcome
from odsi_proto.node.execution import ExecutionQueue
from odsi_proto.statemachine.effects import Release, Run
from odsi_proto.units import Micros, Position, RequestId, Slack
from odsi_proto.wire.tensor import ActivationCodec

WIDTH = 4


class Engine:
    """Adds one to every number, and notes what ran where; requests in ``fails`` can not be run."""

    config = SimpleNamespace(width=WIDTH)

    def __init__(self, *, stable: bool = True, fails: Sequence[int] = ()) -> None:
        self.backend = SimpleNamespace(stability=Stability(batch=stable, chunks=stable, threads=stable))
        self.pieces: list[tuple[list[tuple[int, int, int]], bool]] = []
        """Request, position and count of each step, and whether it ran in the event loop's thread."""
        self.go = threading.Event()
        self.go.set()
        self.begun = threading.Event()
        self._fails = [name(request) for request in fails]

    def run_each(self, steps: Sequence[StageStep]) -> list[torch.Tensor | LocalProtocolError]:
        is_inline = threading.current_thread() is threading.main_thread()
        ran = [
            (int.from_bytes(step.request_id, "big"), step.first_position, len(step.rows)) for step in steps
        ]
        self.pieces.append((ran, is_inline))
        self.begun.set()
        if not is_inline:
            self.go.wait(10)
        return [
            LocalProtocolError("it can not") if step.request_id in self._fails else step.rows + 1
            for step in steps
        ]

    def is_open(self, request: bytes) -> bool:
        return False

    def wheres(self) -> list[bool]:
        return [is_inline for _, is_inline in self.pieces]


def name(request: int) -> RequestId:
    return RequestId(request.to_bytes(16, "big"))


def number(request: bytes) -> int:
    return int.from_bytes(request, "big")


def run(
    request: int, position: int, *, count: int = 1, rows_out_max: int = 512, **changes: int | bytes
) -> Run:
    payload = torch.arange(count * WIDTH, dtype=torch.float32).numpy().tobytes()
    slack_us = int(changes.get("slack_us", 1_000_000))
    return Run(
        request=name(request),
        position=Position(position),
        count=count,
        payload=memoryview(changes.get("payload", payload)),  # type: ignore[arg-type]
        codec_in=ActivationCodec.F32,
        codec_out=ActivationCodec.F32,
        rows_out_max=rows_out_max,
        remaining_us=Micros(max(0, slack_us)),
        slack_us=Slack(slack_us),
        is_droppable=bool(changes.get("is_droppable", False)),
    )


async def execute(queue: ExecutionQueue, *runs: Run) -> list[Outcome]:
    """Start all in one turn of the loop, and wait for their answers."""
    answers = [asyncio.get_running_loop().create_future() for _ in runs]
    for effect, answer in zip(runs, answers, strict=True):
        queue.run(effect, answer.set_result)
    return await asyncio.gather(*answers)


def outcomes(engine: Engine, *turns: Sequence[Run], limits: Limits | None = None) -> list[list[Outcome]]:
    """Of steps that come turn by turn, each turn once the one before it is answered."""

    async def main() -> list[list[Outcome]]:
        queue = ExecutionQueue(engine, threads=1, limits=limits)  # type: ignore[arg-type]
        try:
            return [await execute(queue, *runs) for runs in turns]
        finally:
            queue.shut_down()

    return asyncio.run(main())


def numbers(outcome: Outcome) -> list[float]:
    assert outcome.rows is not None
    return [float(value) for value in memoryview(outcome.rows).cast("f")]


# Where a piece runs


def test_the_first_step_runs_with_the_worker_and_a_short_one_after_it_in_the_loop() -> None:
    engine = Engine()
    outcomes(engine, [run(1, 0)], [run(1, 1)])
    assert engine.wheres() == [False, True]


def test_a_step_that_failed_says_nothing_of_how_long_one_takes() -> None:
    """It ended at once, and the next one ran in the loop however long it took."""
    engine = Engine(fails=[1])
    outcomes(engine, [run(1, 0)], [run(2, 0)])
    assert engine.wheres() == [False, False]


def test_short_steps_that_come_in_one_turn_run_together() -> None:
    engine = Engine()
    outcomes(engine, [run(1, 0), run(2, 0)])
    assert [ran for ran, _ in engine.pieces] == [[(1, 0, 1), (2, 0, 1)]]


def test_a_piece_with_something_behind_it_does_not_run_in_the_loop() -> None:
    engine = Engine()
    outcomes(engine, [run(1, 0)], [run(1, 1), run(2, 0, count=40, slack_us=9_000_000)])
    assert True not in engine.wheres()


@pytest.mark.parametrize("count", [2, 128])
def test_a_prompt_never_runs_in_the_loop(count: int) -> None:
    engine = Engine()
    outcomes(engine, [run(1, 0)], [run(1, 1, count=count)])
    assert True not in engine.wheres()


def test_a_decode_that_takes_longer_than_the_loop_can_wait_never_runs_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("odsi_proto.node.execution.INLINE_US_MAX", -1)
    engine = Engine()
    outcomes(engine, [run(1, 0)], [run(1, 1)])
    assert engine.wheres() == [False, False]


# What comes of it


def test_a_prompt_is_answered_in_one_payload_however_it_was_cut() -> None:
    engine = Engine()
    [[outcome]] = outcomes(engine, [run(1, 0, count=300)])
    assert len(engine.pieces) > 1
    assert numbers(outcome) == [value + 1.0 for value in range(300 * WIDTH)]


@pytest.mark.parametrize("wanted", [1, 30, 299])
def test_only_the_last_rows_are_answered_where_no_more_are_wanted(wanted: int) -> None:
    [[outcome]] = outcomes(Engine(), [run(1, 0, count=300, rows_out_max=wanted)])
    assert numbers(outcome) == [value + 1.0 for value in range((300 - wanted) * WIDTH, 300 * WIDTH)]


def test_where_rows_depend_on_company_and_cuts_every_step_runs_alone_and_whole() -> None:
    engine = Engine(stable=False)
    outcomes(engine, [run(1, 0, count=40), run(2, 0), run(3, 0)])
    assert sorted(ran for ran, _ in engine.pieces) == [[(1, 0, 40)], [(2, 0, 1)], [(3, 0, 1)]]


def test_a_step_that_fails_keeps_no_other_of_its_piece_back() -> None:
    [[one, two, three]] = outcomes(
        Engine(fails=[2]), [run(1, 0), run(2, 0), run(3, 0, payload=b"\0\0\x80\x7f" * WIDTH)]
    )
    assert numbers(one) == [1.0, 2.0, 3.0, 4.0]
    assert (two.rows, two.reason, two.bug) == (None, "it can not", "")
    assert three.rows is None
    assert "not finite" in three.reason


def test_an_error_of_our_own_fails_every_step_of_the_piece_and_shows_where_it_was() -> None:
    engine = Engine()
    engine.run_each = lambda steps: 1 // 0  # type: ignore[method-assign,assignment,return-value]
    [answers] = outcomes(engine, [run(1, 0), run(2, 0)])
    assert [answer.reason for answer in answers] == ["internal error: ZeroDivisionError"] * 2
    assert all("run_each" in answer.bug for answer in answers)


def test_a_droppable_step_with_nothing_left_is_answered_expired_and_not_run() -> None:
    engine = Engine()
    [[outcome]] = outcomes(engine, [run(1, 0, slack_us=0, is_droppable=True)])
    assert outcome.is_expired
    assert not engine.pieces


def test_what_is_beyond_the_bounds_is_refused_with_the_queue_time() -> None:
    engine = Engine()
    [answers] = outcomes(engine, [run(1, 0), run(2, 0), run(3, 0)], limits=Limits(executor_steps_max=2))
    assert [answer.rows is None for answer in answers] == [False, False, True]
    assert "queue is full, for" in answers[2].reason


def test_steps_are_answered_in_the_order_in_which_they_came() -> None:
    async def main() -> list[int]:
        queue = ExecutionQueue(Engine(), threads=1)  # type: ignore[arg-type]
        order: list[int] = []
        done = asyncio.Event()

        def answer(position: int) -> None:
            order.append(position)
            if len(order) == 5:
                done.set()

        position = 0
        for count in (1, 20, 1, 40, 1):
            queue.run(run(1, position, count=count), lambda _, p=position: answer(p))  # type: ignore[misc]
            position += count
        await done.wait()
        queue.shut_down()
        return order

    assert asyncio.run(main()) == [0, 1, 21, 22, 62]


def test_steps_of_an_ended_request_are_answered_unrun() -> None:
    async def main() -> tuple[list[str], list[tuple[int, int, int]]]:
        engine = Engine()
        engine.go.clear()
        queue = ExecutionQueue(engine, threads=1)  # type: ignore[arg-type]
        running = asyncio.create_task(execute(queue, run(1, 0, count=40), run(1, 40)))
        await asyncio.to_thread(engine.begun.wait, 10)
        queue.release(Release(request=name(1)))
        engine.go.set()
        answers = await running
        load = queue.load()
        queue.shut_down()
        assert load.credit_steps == Limits().executor_steps_max
        return [answer.reason for answer in answers], [ran for piece, _ in engine.pieces for ran in piece]

    reasons, ran = asyncio.run(main())
    assert reasons == ["the request has ended"] * 2
    assert ran == [(1, 0, 16)], "nothing more of the prompt than the piece under way"


# What is said of it


def test_load_and_snapshot_say_what_is_held_and_what_ran() -> None:
    async def main() -> None:
        engine = Engine()
        engine.go.clear()
        queue = ExecutionQueue(engine, threads=1)  # type: ignore[arg-type]
        assert queue.load().decode_us is None
        running = asyncio.create_task(execute(queue, run(1, 0), run(1, 1), run(2, 0)))
        await asyncio.to_thread(engine.begun.wait, 10)
        held = queue.snapshot()
        assert (held.running, held.waiting.steps, held.waiting.payload_bytes) == (2, 1, 4 * WIDTH)
        assert queue.load().credit_steps == Limits().executor_steps_max - 3
        engine.go.set()
        await running
        after = queue.snapshot()
        assert (after.steps, after.pieces, after.running, after.waiting.steps) == (3, 2, 0, 0)
        assert after.steps_per_piece == ((1, 1), (2, 1))
        assert after.decode_us is not None
        queue.shut_down()

    asyncio.run(main())
