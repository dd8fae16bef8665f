"""A status as JSON and back, and what is not taken for one."""

import json
from typing import Any

import pytest
from docs.json_page import documented
from node.statuses import status

from odsi_proto.errors import ConfigError
from odsi_proto.node.status import ITEMS_MAX, TEXT_MAX, read_status, to_fields

PARTS = {
    "connections": "Each of `connections`",
    "requests": "Each of `requests`",
    "waiting": "Each of `waiting`",
    "sending": "Each of `sending`",
}


def fields() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(json.dumps(to_fields(status())))
    return read


def test_a_status_comes_back_as_it_was() -> None:
    assert read_status(fields()) == status()


def test_fields_that_a_reader_does_not_know_are_passed_over() -> None:
    assert read_status(fields() | {"event": "status", "of_tomorrow": [1]}) == status()


def test_every_field_is_documented_and_no_other() -> None:
    assert set(fields()) == documented("status")
    assert set(fields()["history"]) == documented("status", after="`history`:")


@pytest.mark.parametrize(("name", "after"), PARTS.items())
def test_every_field_of_a_list_is_documented_and_no_other(name: str, after: str) -> None:
    assert [set(item) for item in fields()[name]] == [documented("status", after=after)] * len(fields()[name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"port": "4433"}, "status.port is not an integer"),
        ({"port": True}, "status.port is not an integer"),
        ({"port": 1.5}, "status.port is not an integer"),
        ({"port": 1 << 64}, "status.port is out of range"),
        ({"model": None}, "status.model is not a text"),
        ({"model": "m" * (TEXT_MAX + 1)}, "status.model is not a text"),
        ({"is_draining": 1}, "status.is_draining is not a truth value"),
        ({"connections": {}}, "status.connections is not a list"),
        ({"connections": [7]}, r"status.connections\[0\] is not an object"),
        ({"waiting": [{}]}, r"status.waiting\[0\] has no field request"),
        ({"history": {"interval_us": 1}}, "status.history has no field rtt_us"),
        ({"steps": {"done": "1"}}, "status.steps.done is not an integer"),
        ({"steps": []}, "status.steps is not an object"),
        ({"requests": [None] * (ITEMS_MAX + 1)}, "status.requests is not a list"),
    ],
)
def test_what_is_no_status_is_refused_by_the_name_of_the_field(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_status(fields() | changes)


@pytest.mark.parametrize("given", [None, 1, "status", [], {}])
def test_what_is_no_object_with_fields_is_refused(given: object) -> None:
    with pytest.raises(ConfigError):
        read_status(given)
