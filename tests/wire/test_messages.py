"""The bodies that are signed."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from wire.samples import DELEGATION, bodies, cancels, commits, hellos, opens

from odsi_proto.errors import Malformed
from odsi_proto.units import LayerRange, Micros, ParticipantId, Position, RequestId, StageIndex
from odsi_proto.wire import cbor
from odsi_proto.wire.messages import (
    EXTENSION_BYTES_MAX,
    LAYERS_MAX,
    LIST_ITEMS_MAX,
    Cancel,
    Commit,
    Deadline,
    Extension,
    Hello,
    Offer,
    Open,
    StagePlan,
    auth_body,
    first_critical,
)
from odsi_proto.wire.varint import VARINT_MAX

Body = Hello | Open | Commit | Cancel

STAGE = StagePlan(
    participant=ParticipantId(b"p" * 32),
    standbys=(),
    layers=LayerRange(0, 10),
    budget_us=Micros(0),
    remaining_min_us=Micros(0),
    remaining_max_us=Micros(9),
)
OPEN = Open(
    request_id=RequestId(b"r" * 16),
    lineage=0,
    model_root=b"m" * 32,
    profile=1,
    hash_suite=1,
    width=4,
    stages=(STAGE,),
    codecs=(1, 2),
    deadlines=(Deadline(kind=1, budget_us=Micros(7)),),
    late_action=1,
    price_cap=0,
    positions_max=8,
    rows_returned_max=1,
    return_token_sha256=b"t" * 32,
    expiry_s=5,
)
COMMIT = Commit(
    open_digest=b"o" * 32,
    request_id=OPEN.request_id,
    lineage=0,
    stage=StageIndex(0),
    layers=LayerRange(0, 10),
    position_first=Position(0),
    position_end=Position(8),
    predecessor=ParticipantId(b"c" * 32),
    model_root=b"m" * 32,
    profile=1,
    codec_in=1,
    codec_out=2,
    budget_us=Micros(0),
    tolerance_us=Micros(0),
    price=0,
    checkpoint_steps=0,
    checkpoint_us=Micros(0),
    retention_window=8,
    expiry_s=5,
    previous_commit=b"",
)
CANCEL = Cancel(request_id=OPEN.request_id, lineage=0, code=0x13)
HELLO = Hello(
    versions=(1,),
    delegation=DELEGATION,
    nonce=b"n" * 32,
    certificate_sha256=b"",
    roles=(1,),
    codecs=(1, 2),
    profiles=(1,),
    hash_suites=(1,),
    settings=((2, 512),),
    offers=(Offer(layers=LayerRange(0, 10), model_root=b"m" * 32),),
)


def through(body: Body) -> Body:
    return type(body).decode(body.encode())


@settings(max_examples=60)
@given(bodies)
def test_a_body_reads_back_as_it_was_written(body: Body) -> None:
    assert through(body) == body


@settings(max_examples=20)
@given(bodies)
def test_every_proper_prefix_of_a_body_is_malformed(body: Body) -> None:
    encoded = body.encode()
    for size in range(len(encoded)):
        with pytest.raises(Malformed):
            type(body).decode(encoded[:size])


@pytest.mark.parametrize("body", [HELLO, OPEN, COMMIT, CANCEL])
def test_a_body_with_a_field_more_or_less_is_malformed(body: Body) -> None:
    values = cbor.decode(body.encode())
    assert isinstance(values, tuple)
    for wrong in (values[:-1], (*values, 0), ()):
        with pytest.raises(Malformed):
            type(body).decode(cbor.encode(wrong))


@pytest.mark.parametrize("body", [OPEN, COMMIT, CANCEL])
def test_a_body_of_another_version_is_malformed(body: Body) -> None:
    values = cbor.decode(body.encode())
    assert isinstance(values, tuple)
    with pytest.raises(Malformed, match="the value 1"):
        type(body).decode(cbor.encode((2, *values[1:])))


AT_THE_LIMIT: list[tuple[Body, dict[str, Any]]] = [
    (OPEN, {"width": 1 << 20}),
    (OPEN, {"positions_max": 1 << 30}),
    (OPEN, {"lineage": VARINT_MAX}),
    (OPEN, {"expiry_s": 2**64 - 1}),
    (OPEN, {"stages": (STAGE,) * LIST_ITEMS_MAX, "codecs": (1,) * (LIST_ITEMS_MAX + 1)}),
    (OPEN, {"deadlines": OPEN.deadlines * LIST_ITEMS_MAX}),
    (OPEN, {"extensions": (Extension(type=1, value=bytes(EXTENSION_BYTES_MAX)),) * LIST_ITEMS_MAX}),
    (OPEN, {"stages": (dataclasses.replace(STAGE, layers=LayerRange(0, LAYERS_MAX)),)}),
    (OPEN, {"stages": (dataclasses.replace(STAGE, standbys=(STAGE.participant,) * LIST_ITEMS_MAX),)}),
    (COMMIT, {"stage": LIST_ITEMS_MAX - 1}),
    (COMMIT, {"lineage": VARINT_MAX}),
    (COMMIT, {"previous_commit": bytes(32)}),
    (CANCEL, {"lineage": VARINT_MAX}),
    (HELLO, {"codecs": (1,) * LIST_ITEMS_MAX}),
    (HELLO, {"settings": ((1, 1),) * LIST_ITEMS_MAX}),
    (HELLO, {"offers": HELLO.offers * LIST_ITEMS_MAX}),
    (HELLO, {"certificate_sha256": bytes(32)}),
]

BEYOND_THE_LIMIT: list[tuple[Body, dict[str, Any]]] = [
    (OPEN, {"width": (1 << 20) + 1}),
    (OPEN, {"positions_max": (1 << 30) + 1}),
    (OPEN, {"lineage": VARINT_MAX + 1}),  # a stage would answer it with another lineage
    (OPEN, {"stages": (STAGE,) * (LIST_ITEMS_MAX + 1), "codecs": (1,) * (LIST_ITEMS_MAX + 2)}),
    (OPEN, {"deadlines": OPEN.deadlines * (LIST_ITEMS_MAX + 1)}),
    (OPEN, {"extensions": (Extension(type=1, value=bytes(EXTENSION_BYTES_MAX + 1)),)}),
    (OPEN, {"extensions": (Extension(type=1, value=b""),) * (LIST_ITEMS_MAX + 1)}),
    (OPEN, {"stages": (dataclasses.replace(STAGE, layers=LayerRange(0, LAYERS_MAX + 1)),)}),
    (OPEN, {"stages": (dataclasses.replace(STAGE, standbys=(STAGE.participant,) * (LIST_ITEMS_MAX + 1)),)}),
    (OPEN, {"stages": (dataclasses.replace(STAGE, standbys=(b"short",)),)}),
    (OPEN, {"stages": (), "codecs": (1,)}),
    (OPEN, {"codecs": (1,)}),
    (OPEN, {"codecs": (1, 2, 3)}),
    (OPEN, {"width": 0}),
    (OPEN, {"positions_max": 0}),
    (OPEN, {"rows_returned_max": 0}),
    (OPEN, {"request_id": b"r" * 15}),
    (OPEN, {"model_root": b"m" * 33}),
    (COMMIT, {"stage": LIST_ITEMS_MAX}),
    (COMMIT, {"lineage": VARINT_MAX + 1}),
    (COMMIT, {"previous_commit": bytes(31)}),
    (COMMIT, {"previous_commit": bytes(33)}),
    (CANCEL, {"lineage": VARINT_MAX + 1}),
    (HELLO, {"codecs": (1,) * (LIST_ITEMS_MAX + 1)}),
    (HELLO, {"offers": HELLO.offers * (LIST_ITEMS_MAX + 1)}),
    (HELLO, {"nonce": bytes(31)}),
    (HELLO, {"certificate_sha256": bytes(1)}),
]


@pytest.mark.parametrize(("body", "values"), AT_THE_LIMIT)
def test_a_field_at_its_limit_is_read(body: Body, values: dict[str, Any]) -> None:
    changed = dataclasses.replace(body, **values)
    assert through(changed) == changed


@pytest.mark.parametrize(("body", "values"), BEYOND_THE_LIMIT)
def test_a_field_beyond_its_limit_is_malformed(body: Body, values: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        through(dataclasses.replace(body, **values))


@pytest.mark.parametrize(("first", "end"), [(5, 5), (6, 5)])
def test_a_range_of_no_layers_is_malformed(first: int, end: int) -> None:
    values = list(cbor.decode(COMMIT.encode()))  # type: ignore[arg-type]
    values[5:7] = [first, end]
    with pytest.raises(Malformed, match="layers"):
        Commit.decode(cbor.encode(values))


@pytest.mark.parametrize(
    ("types", "found"), [((), None), ((1, 27, 3), None), ((1, 4, 6), 4), ((2**64 - 2,), 2**64 - 2)]
)
def test_the_first_even_extension_is_critical(types: tuple[int, ...], found: int | None) -> None:
    critical = first_critical([Extension(type=number, value=b"") for number in types])
    assert (critical.type if critical else None) == found


def test_a_budget_is_found_by_its_kind() -> None:
    assert (OPEN.budget_us(1), OPEN.budget_us(2)) == (7, None)


def test_auth_says_who_speaks_and_what_both_said() -> None:
    said = {"dialler_hello": b"d", "acceptor_hello": b"a", "acceptor_certificate_sha256": b"s" * 32}
    dialler, acceptor = (auth_body(**said, is_dialler=side) for side in (True, False))  # type: ignore[arg-type]
    assert (dialler[0], acceptor[0], len(dialler)) == (0, 1, 97)
    assert dialler[1:] == acceptor[1:]


@settings(max_examples=20)
@given(hellos, opens(), commits, cancels)
def test_no_body_is_read_as_another(hello: Hello, opened: Open, commit: Commit, cancel: Cancel) -> None:
    every: list[Body] = [hello, opened, commit, cancel]
    for body in every:
        for other in every:
            if body is not other:
                with pytest.raises(Malformed):
                    type(other).decode(body.encode())
