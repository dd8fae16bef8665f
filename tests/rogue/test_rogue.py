"""The rogue itself: honest up to its moment, quiet where it is told, and the same for the same seed."""

import random
from dataclasses import replace

import pytest
from rogue.scene import LIMITS, OWN_TOKENS, play

from odsi_proto.errors import ConfigError
from odsi_proto.statemachine.client import ClientEndpoint
from odsi_proto.statemachine.effects import SendControl
from odsi_proto.statemachine.session import Binding, SelfDescription
from odsi_proto.testing import make_signer
from odsi_proto.testing.rogue import DEVIATIONS, Part, RogueEffect, Seat, make_rogue
from odsi_proto.testing.rogue.ear import Ear
from odsi_proto.units import ConnectionId, Micros
from odsi_proto.wire.codepoints import Role
from odsi_proto.wire.frames import GoawayFrame, encode_frame

NEVER = replace(DEVIATIONS["odd-frame"], moments=frozenset())
LINK = ConnectionId(1)
BINDING = Binding(is_dialler=False, acceptor_certificate_sha256=bytes(32), acceptor_key=bytes(32))


def client(seed: int = 1) -> ClientEndpoint:
    return ClientEndpoint(
        about=SelfDescription(signer=make_signer(seed), roles=(Role.CLIENT,)),
        limits=LIMITS,
        choices=random.Random(seed).randbytes,
        unix_s_at_zero=1_000_000,
    )


def control(effects: tuple[RogueEffect, ...]) -> bytes:
    return b"".join(effect.data for effect in effects if isinstance(effect, SendControl))


def test_a_rogue_whose_moment_never_comes_says_what_the_endpoint_inside_says() -> None:
    rogue, honest = make_rogue(NEVER, client(), bytes), client()
    now, peer = Micros(0), client(2)
    said = [end.connection_made(LINK, BINDING, now=now) for end in (rogue, honest)]
    greeting = control(peer.connection_made(LINK, replace(BINDING, is_dialler=True), now=now))
    answers = [end.stream_data(LINK, 0, greeting, fin=False, now=now) for end in (rogue, honest)]
    assert control(said[0]) == control(said[1])
    assert control(answers[0]) == control(answers[1]) != b""
    assert rogue.acted == []


def test_a_path_through_a_rogue_whose_moment_never_comes_serves_its_requests() -> None:
    outcome = play(NEVER, Part.STAGE, Seat.MIDDLE)
    assert [job.is_done for job in outcome.own] == [True, True]
    assert not outcome.closes


@pytest.mark.parametrize(("name", "times"), [("step-twice", 1), ("grease-streams", OWN_TOKENS + 1)])
def test_a_deviation_acts_once_unless_it_is_constant(name: str, times: int) -> None:
    outcome = play(DEVIATIONS[name], Part.CLIENT, Seat.FIRST)
    assert len(outcome.rogue.endpoint.acted) == times


def test_the_same_deviation_and_choices_give_the_same_run() -> None:
    deviation = DEVIATIONS["grease-everywhere"]
    one, other = (play(deviation, Part.STAGE, Seat.LAST).rogue for _ in range(2))
    assert control(tuple(one.effects)) == control(tuple(other.effects))
    assert one.endpoint.acted == other.endpoint.acted


def test_a_silent_rogue_keeps_silent() -> None:
    rogue = make_rogue(DEVIATIONS["never-hello"], client(), bytes)
    rogue.connection_made(LINK, BINDING, now=Micros(0))
    greeting = control(client(2).connection_made(LINK, BINDING, now=Micros(0)))
    assert control(rogue.stream_data(LINK, 0, greeting, fin=False, now=Micros(0))) == b""
    assert control(rogue.drain("leaving", now=Micros(0))) == b""


def test_nothing_goes_out_on_a_connection_that_the_rogue_has_lost() -> None:
    rogue = make_rogue(NEVER, client(), bytes)
    rogue.connection_made(LINK, BINDING, now=Micros(0))
    rogue.connection_lost(LINK, "gone", now=Micros(0))
    assert rogue.drain("leaving", now=Micros(0)) == ()


def test_a_deviation_of_a_stage_is_none_of_a_client() -> None:
    with pytest.raises(ConfigError, match="commit-never is a deviation of a stage, not of a client"):
        make_rogue(DEVIATIONS["commit-never"], client(), bytes)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_frames_are_heard_however_their_bytes_come(size: int) -> None:
    frames = [GoawayFrame(code=code, reason="x" * code) for code in (0, 3, 70)]
    data = b"\x00" + b"".join(map(encode_frame, frames))
    ear, heard = Ear(LIMITS.control_frame_bytes_max), []
    for at in range(0, len(data), size):
        heard += ear.hear(data[at : at + size])
    assert heard == frames


@pytest.mark.parametrize("data", [b"\x02\x00\x00", b"\x00\x12\x01\x00\x12\x02\x00\x00"])
def test_streams_that_carry_no_frames_are_not_listened_to(data: bytes) -> None:
    assert Ear(LIMITS.control_frame_bytes_max).hear(data) == []
