"""Explaining bytes: everything that is right is named, and what is wrong is found."""

import random

import pytest
from hypothesis import given
from wire.samples import any_frames
from wire.test_hostile import SEEDS, mutated

from odsi_proto.testing import vectors
from odsi_proto.units import Handle, Position, StageIndex
from odsi_proto.wire import cbor
from odsi_proto.wire import frames as fr
from odsi_proto.wire.annotate import Annotation, Kind, Note, annotate, describe, guess
from odsi_proto.wire.varint import encode_varint

KINDS = {
    "frame": Kind.FRAME,
    "step_header": Kind.STEP,
    "cbor": Kind.CBOR,
    "hello": Kind.HELLO,
    "open": Kind.OPEN,
    "commit": Kind.COMMIT,
    "cancel": Kind.CANCEL,
    "delegation": Kind.DELEGATION,
    "signed_message": Kind.SIGNED,
}
VECTORS = {v.name: v for v in vectors.load(vectors.default_directory()) if v.kind == "codec"}
EXPLAINED = {name: v for name, v in VECTORS.items() if v.data["codec"] in KINDS}
OPAQUE = {
    "frames/open-of-the-last-stage",
    "anchors/hello",
    "anchors/open",
    "anchors/commit",
    "anchors/cancel",
}
"""Frames that are right and hold a message that is none."""


def explained(name: str) -> Annotation:
    vector = EXPLAINED[name]
    return annotate(bytes.fromhex(vector.data["bytes"]), KINDS[vector.data["codec"]])


def valued(found: Annotation, name: str) -> list[str]:
    return [note.value for note in found.notes if note.name == name]


@pytest.mark.parametrize(
    "name", [name for name, v in EXPLAINED.items() if v.data["valid"] and name not in OPAQUE]
)
def test_nothing_is_wrong_with_a_valid_vector_and_every_byte_is_named(name: str) -> None:
    found = explained(name)
    assert found.problems == []
    named = {at for note in found.notes for at in range(note.offset, note.offset + note.size)}
    assert named == set(range(len(EXPLAINED[name].data["bytes"]) // 2))


@pytest.mark.parametrize("name", [name for name, v in EXPLAINED.items() if not v.data["valid"]])
def test_something_is_wrong_with_an_invalid_vector(name: str) -> None:
    in_another_domain = name.endswith("in-another-domain")  # which only the frame would tell
    assert bool(explained(name).problems) is not in_another_domain


@pytest.mark.parametrize("name", sorted(OPAQUE - {"frames/open-of-the-last-stage"}))
def test_a_message_that_is_none_does_not_hide_the_frame(name: str) -> None:
    found = explained(name)
    assert found.problems != []
    assert valued(found, "frame") == [EXPLAINED[name].data["value"]["frame"]]


def test_no_bytes_make_it_raise() -> None:
    source = random.Random(5)
    for _, _, seeds in SEEDS:
        for _ in range(150):
            raw = mutated(source, source.choice(seeds))
            for kind in (Kind.AUTO, source.choice(list(Kind))):
                found = annotate(raw, kind)
                assert all(0 <= problem.offset <= len(raw) for problem in found.problems)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("frames/auth", Kind.FRAME),
        ("frames/hello", Kind.FRAME),
        ("frames/goaway", Kind.FRAME),
        ("step-headers/typical", Kind.STEP),
        ("messages/hello", Kind.HELLO),
        ("messages/open", Kind.OPEN),
        ("messages/commit", Kind.COMMIT),
        ("messages/cancel", Kind.CANCEL),
        ("messages/delegation", Kind.DELEGATION),
        ("messages/signed-open", Kind.SIGNED),
        ("anchors/cbor", Kind.CBOR),
    ],
)
def test_the_kind_is_told_from_the_first_bytes(name: str, kind: Kind) -> None:
    assert guess(bytes.fromhex(VECTORS[name].data["bytes"])) is kind


def test_nothing_at_all_is_malformed() -> None:
    assert guess(b"") is Kind.CBOR
    assert annotate(b"").problems != []


def test_a_control_stream_is_its_type_and_frames() -> None:
    hello = bytes.fromhex(VECTORS["frames/hello"].data["bytes"])
    found = annotate(b"\x00" + hello + b"\x12\x02\x14\x00")
    assert found.kind is Kind.CONTROL
    assert valued(found, "stream type") == ["CONTROL"]
    assert valued(found, "frame") == ["HELLO", "GOAWAY"]
    assert found.problems == []


@pytest.mark.parametrize(
    ("number", "meaning"),
    [
        (27, "reserved"),
        (89, "reserved"),
        (0x4001, "odd: to be ignored"),
        (0x4000, "even: must be understood"),
    ],
)
def test_an_unknown_frame_says_what_its_number_means(number: int, meaning: str) -> None:
    found = annotate(encode_varint(number) + b"\x01x", Kind.FRAME)
    assert meaning in valued(found, "frame")[0]
    assert valued(found, "body") == ["78"]


@pytest.mark.parametrize(("kind", "raw"), [(Kind.STEP, "1b"), (Kind.CONTROL, "1a"), (Kind.CONTROL, "02")])
def test_another_stream_is_not_taken_for_the_one_asked_for(kind: Kind, raw: str) -> None:
    (problem,) = annotate(bytes.fromhex(raw), kind).problems
    assert "stream" in problem.what


def test_what_is_there_of_a_cut_frame_is_shown() -> None:
    found = annotate(bytes.fromhex("0c0905010e"), Kind.FRAME)
    assert valued(found, "code") == ["MISSING_STEP"]
    assert found.problems[0].offset == 5


def test_a_cut_unknown_frame_is_cut() -> None:
    assert "missing" in annotate(b"\x1b\x05abc", Kind.FRAME).problems[0].what


def test_a_problem_inside_a_message_does_not_stop_the_frames_after_it() -> None:
    found = annotate(bytes.fromhex("1001a012021400"), Kind.FRAME)
    assert valued(found, "frame") == ["CANCEL", "GOAWAY"]
    assert len(found.problems) == 1


def test_bytes_after_an_inner_item_are_found() -> None:
    outer = cbor.encode([cbor.encode([1]) + b"\x00", bytes(64)])
    (problem,) = annotate(outer, Kind.DELEGATION).problems
    assert "1 bytes after the item" in problem.what


def test_arrays_nested_too_deep_are_found() -> None:
    (problem,) = annotate(b"\x81" * 9 + b"\x80", Kind.CBOR).problems
    assert "deeper" in problem.what


def test_a_note_says_where_it_is() -> None:
    first, length, *_ = annotate(bytes.fromhex("12021400"), Kind.FRAME).notes
    assert first == Note(offset=0, size=1, depth=0, name="frame", value="GOAWAY")
    assert length == Note(offset=1, size=1, depth=1, name="length", value="2")


@given(any_frames)
def test_a_description_is_one_short_line_that_names_the_frame(frame: fr.Frame) -> None:
    line = describe(frame)
    assert "\n" not in line
    assert len(line) < 1_000
    assert type(frame).__name__.removesuffix("Frame").upper() in line or isinstance(frame, fr.UnknownFrame)


def test_a_refusal_is_described_by_whom_where_and_why() -> None:
    frame = fr.RefuseFrame(
        handle=Handle(3), stage=StageIndex(1), code=0x0E, lineage=0, position=Position(7), reason="gone"
    )
    assert describe(frame) == "REFUSE handle 3 stage 1 lineage 0 position 7: MISSING_STEP 'gone'"
