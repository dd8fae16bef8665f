"""What a node tells its endpoint of its executor: the load, and how each step ended."""

from types import SimpleNamespace
from typing import Any

import pytest
from node.queue_bench import run

from odsi_proto.kernels.model_path import default_model_path
from odsi_proto.node.compute import Outcome
from odsi_proto.node.config import NodeConfig
from odsi_proto.node.server import Node
from odsi_proto.statemachine.effects import Release
from odsi_proto.testing import make_signer
from odsi_proto.units import LayerRange, Micros, RequestId


class Calls:
    """Notes each call by name."""

    def __init__(self, noted: list[str]) -> None:
        self._noted = noted

    def __getattr__(self, name: str) -> Any:
        def note(*values: object, **named: object) -> tuple[()]:
            self._noted.append(name)
            return ()

        return note


@pytest.fixture
def noted() -> list[str]:
    return []


@pytest.fixture
def node(noted: list[str]) -> Node:
    config = NodeConfig(model=default_model_path(), layers=LayerRange(0, 1), signer=make_signer(1))
    node = Node(config)
    node._endpoint = Calls(noted)  # type: ignore[assignment]
    node._driver = SimpleNamespace(act=lambda effects: None)  # type: ignore[assignment]
    node._execution = Calls(noted)  # type: ignore[assignment]
    return node


def outcome(rows: memoryview | None, reason: str = "", *, is_expired: bool = False) -> Outcome:
    return Outcome(Micros(1), Micros(2), rows, reason, is_expired=is_expired)


def test_what_the_executor_takes_is_told_after_each_step_that_it_took(node: Node, noted: list[str]) -> None:
    node.perform(run(1))
    assert noted == ["run", "load", "executor_measured"]


def test_what_the_executor_takes_is_told_after_a_request_has_ended(node: Node, noted: list[str]) -> None:
    node.perform(Release(request=RequestId(bytes(16))))
    assert noted == ["release", "load", "executor_measured"]


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        (outcome(memoryview(b"rows")), "output"),
        (outcome(None, "no memory"), "failed"),
        (outcome(None, "nothing is left", is_expired=True), "expired"),
    ],
)
def test_the_load_is_told_before_the_end_of_a_step(
    node: Node, noted: list[str], ended: Outcome, told: str
) -> None:
    node._ran(run(1), ended)
    assert noted[:3] == ["load", "executor_measured", told]
