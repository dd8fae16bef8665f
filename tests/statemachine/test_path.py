"""Requests along a path, from OPEN to the last token, between real endpoints."""

import pytest
from statemachine.protocol_path import LAYOUT, Path, make_path

from odsi_proto.limits import Limits
from odsi_proto.statemachine.effects import (
    Established,
    PathReady,
    Release,
    RequestFailed,
    RowsArrived,
    SendStep,
    StatusArrived,
)
from odsi_proto.units import Micros
from odsi_proto.wire.codepoints import ErrorCode


@pytest.mark.spec("SESS-001", "SESS-002")
def test_both_sides_are_established_after_hello_and_auth(path: Path) -> None:
    assert len(path.seen(Established)) == 2
    assert [len(path.seen(Established, at=stage)) for stage in path.stages] == [2, 2, 2]


@pytest.mark.spec("REQ-001", "REQ-003", "REQ-021")
def test_the_path_is_ready_when_every_stage_has_committed_and_the_client_is_attached(path: Path) -> None:
    path.open()
    assert len(path.seen(PathReady)) == 1


@pytest.mark.spec("STEP-001", "STEP-010", "REQ-022")
@pytest.mark.parametrize("stages_count", [1, 2, 3, 5])
def test_rows_pass_every_stage_once_and_return_to_the_client(stages_count: int) -> None:
    path = make_path(stages_count, Limits())
    path.open()
    path.send([11, 12, 13], fill=1)
    path.settle()
    path.send([14], fill=5)
    path.settle()
    arrived = path.seen(RowsArrived)
    assert [(e.position, bytes(e.payload)) for e in arrived] == [
        (0, bytes([1 + stages_count]) * LAYOUT.row_bytes),
        (3, bytes([5 + stages_count]) * LAYOUT.row_bytes),
    ]


def test_budgets_never_grow_along_the_path(path: Path) -> None:
    path.open()
    path.send([11])
    path.settle()
    remaining = [path.seen(SendStep)[0].remaining_us]
    remaining += [path.seen(SendStep, at=stage)[0].remaining_us for stage in path.stages]
    assert remaining == sorted(remaining, reverse=True)


def test_every_stage_reports_each_step_once(path: Path) -> None:
    path.open()
    path.send([11])
    path.settle()
    reported = [(r.stage, r.position) for e in path.seen(StatusArrived) for r in e.records]
    assert sorted(reported) == [(0, 0), (1, 0), (2, 0)]


@pytest.mark.spec("REQ-006")
def test_cancel_releases_the_state_of_every_stage(path: Path) -> None:
    path.open()
    path.network.perform(
        path.client, path.client.cancel(path.request, ErrorCode.NO_ERROR, now=path.network.now)
    )
    path.settle()
    assert [len(path.seen(Release, at=stage)) for stage in path.stages] == [1, 1, 1]
    assert not any(stage.requests_open for stage in path.stages)


@pytest.mark.spec("REQ-009")
def test_a_lost_link_fails_the_request_and_names_the_stage_that_is_gone(path: Path) -> None:
    path.open()
    path.network.cut(path.stages[1], path.links[1][0], "silent")
    path.settle()
    (failed,) = path.seen(RequestFailed)
    assert (failed.stage, failed.code) == (2, ErrorCode.PEER_LOST)
    assert not any(stage.requests_open for stage in path.stages)


@pytest.mark.spec("REQ-027")
def test_a_withheld_result_fails_at_the_budget_and_names_the_first_silent_stage(path: Path) -> None:
    path.open()
    path.network.set_compute(path.stages[1], lambda run: None)
    path.send([11])
    path.settle(2_000_000)
    (failed,) = path.seen(RequestFailed)
    assert (failed.stage, failed.code) == (1, ErrorCode.EXPIRED)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model_root": bytes(32)}, ErrorCode.MODEL_MISMATCH),
        ({"width": 5}, ErrorCode.MODEL_MISMATCH),
        ({"positions_max": 65}, ErrorCode.LIMIT_EXCEEDED),
    ],
)
def test_an_open_that_does_not_fit_is_refused_by_the_first_stage(
    path: Path, changes: dict[str, object], code: ErrorCode
) -> None:
    path.open(**changes)
    (failed,) = path.seen(RequestFailed)
    assert (failed.stage, failed.code) == (0, code)
    assert not any(stage.requests_open for stage in path.stages)


def test_a_model_mismatch_names_both_digests(path: Path) -> None:
    path.open(model_root=bytes(32))
    (failed,) = path.seen(RequestFailed)
    assert bytes(32).hex() in failed.reason
    assert bytes(range(32)).hex() in failed.reason


@pytest.mark.spec("TIME-002")
def test_the_chunks_of_a_prompt_share_one_budget(path: Path) -> None:
    path.open()
    path.send([11])
    path.network.now = Micros(path.network.now + 400)
    path.send([12])
    first, second = path.seen(SendStep)
    assert first.remaining_us - second.remaining_us == 400
