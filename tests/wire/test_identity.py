"""Participants, delegations and signed messages, with the keys that forgers like."""

import dataclasses
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey
from wire.samples import COLD, DELEGATION, HOT, SIGNER, digests, signed

from odsi_proto.errors import ConfigError, Malformed
from odsi_proto.units import ParticipantId
from odsi_proto.wire import cbor
from odsi_proto.wire.identity import (
    Delegation,
    SignedMessage,
    parse_participant,
    participant_short,
    participant_text,
    signature_is_valid,
    transcript_digest,
)

GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493

# Every encoding of a point of small order that libsodium's list has, plus their sign-bit twins.
SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "0100000000000000000000000000000000000000000000000000000000000080",
]


@given(digests.map(ParticipantId))
def test_an_id_reads_back_from_its_text_in_either_case(participant: ParticipantId) -> None:
    text = participant_text(participant)
    assert len(text) == 52
    assert parse_participant(text) == parse_participant(text.upper()) == participant
    assert text.startswith(participant_short(participant))


@pytest.mark.parametrize(
    "text",
    ["", "a", "a" * 51, "a" * 53, "a" * 51 + "b", "a" * 51 + "1", "a" * 51 + "=", "é" * 52, " " + "a" * 51],
)
def test_what_is_not_an_id_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="participant id"):
        parse_participant(text)


def test_the_digest_separates_domains_participants_and_epochs() -> None:
    participant = ParticipantId(b"p" * 32)
    expected = sha256(b"odsi/1\x04open" + b"p" * 32 + bytes(7) + b"\x03body").digest()
    assert transcript_digest("open", participant, 3, b"body") == expected


def test_a_delegation_reads_back() -> None:
    assert Delegation.decode(DELEGATION.encode()) == DELEGATION


@pytest.mark.parametrize(
    ("unix_s", "skew_s", "current"),
    [
        (999, 0, False),
        (1_000, 0, True),
        (1_999, 0, True),
        (2_000, 0, False),
        (990, 10, True),
        (989, 10, False),
        (2_009, 10, True),
        (2_010, 10, False),
    ],
)
def test_a_delegation_is_current_from_its_start_up_to_its_end(
    unix_s: int, skew_s: int, current: bool
) -> None:
    assert DELEGATION.is_current(unix_s, skew_s=skew_s) is current


@pytest.mark.parametrize(
    "changes",
    [
        {"participant": ParticipantId(bytes(HOT.verify_key))},
        {"hot_key": bytes(32)},
        {"scope": "ALL"},
        {"epoch": 4},
        {"not_before_s": 0},
        {"not_after_s": 2**64 - 1},
        {"revocation_sequence": 1},
        {"signature": bytes(64)},
    ],
)
def test_a_delegation_changed_in_any_field_is_malformed(changes: dict[str, object]) -> None:
    changed = dataclasses.replace(DELEGATION, **changes)  # type: ignore[arg-type]
    with pytest.raises(Malformed, match="not signed"):
        Delegation.decode(changed.encode())


@pytest.mark.parametrize("scope", ["s" * 33, "é" * 17])
def test_a_scope_of_too_many_bytes_is_malformed(scope: str) -> None:
    long = Delegation.issue(
        COLD, hot_key=DELEGATION.hot_key, epoch=1, not_before_s=0, not_after_s=1, scope=scope
    )
    with pytest.raises(Malformed, match="text of at most 32"):
        Delegation.decode(long.encode())


def test_a_scope_at_its_limit_is_read() -> None:
    long = Delegation.issue(
        COLD, hot_key=DELEGATION.hot_key, epoch=1, not_before_s=0, not_after_s=1, scope="é" * 16
    )
    assert Delegation.decode(long.encode()) == long


def test_a_delegation_of_another_format_is_malformed() -> None:
    body, signature = cbor.decode(DELEGATION.encode())  # type: ignore[misc]
    values = cbor.decode(body)
    with pytest.raises(Malformed, match="the value 1"):
        Delegation.decode(cbor.encode([cbor.encode((2, *values[1:])), signature]))  # type: ignore[misc]


@pytest.mark.parametrize("key", SMALL_ORDER)
def test_a_key_of_small_order_verifies_nothing(key: str) -> None:
    """With such a key and R = the neutral element, S = 0 satisfies the equation for many digests."""
    neutral = bytes([1]) + bytes(31)
    raw = bytes.fromhex(key)
    for first in (neutral, raw):
        for number in range(8):
            digest = sha256(bytes([number])).digest()
            assert not signature_is_valid(raw, digest, first + bytes(32))


def test_a_delegation_by_a_key_of_small_order_is_malformed() -> None:
    forged = dataclasses.replace(
        DELEGATION,
        participant=ParticipantId(bytes.fromhex(SMALL_ORDER[0])),
        signature=bytes([1]) + bytes(63),
    )
    with pytest.raises(Malformed, match="not signed"):
        Delegation.decode(forged.encode())


@given(st.binary(max_size=60))
def test_a_signature_with_the_group_order_added_is_refused(body: bytes) -> None:
    digest = sha256(body).digest()
    signature = bytes(HOT.sign(digest).signature)
    key = bytes(HOT.verify_key)
    assert signature_is_valid(key, digest, signature)
    scalar = int.from_bytes(signature[32:], "little")
    for times in range(1, 9):
        other = scalar + times * GROUP_ORDER
        if other < 2**256:
            assert not signature_is_valid(key, digest, signature[:32] + other.to_bytes(32, "little"))


@pytest.mark.parametrize(("key_bytes", "signature_bytes"), [(31, 64), (33, 64), (32, 63), (32, 65), (0, 0)])
def test_keys_and_signatures_of_another_size_are_not_valid(key_bytes: int, signature_bytes: int) -> None:
    assert not signature_is_valid(bytes(key_bytes), bytes(32), bytes(signature_bytes))


def test_a_key_that_is_no_point_is_not_valid() -> None:
    assert not signature_is_valid(b"\x02" + bytes(31), bytes(32), bytes(64))


def test_a_signed_message_reads_back_and_names_its_signer() -> None:
    message = signed("open", b"body")
    assert SignedMessage.decode("open", message.encode()) == message
    assert message.signer == SIGNER.participant == bytes(COLD.verify_key)
    assert message.digest == transcript_digest("open", SIGNER.participant, 3, b"body")


def test_a_message_signed_for_another_domain_is_malformed() -> None:
    with pytest.raises(Malformed, match="not signed by the hot key"):
        SignedMessage.decode("commit", signed("open", b"body").encode())


@pytest.mark.parametrize("field", ["body", "signature", "delegation"])
def test_a_signed_message_changed_in_any_field_is_malformed(field: str) -> None:
    rotated = Delegation.issue(
        COLD, hot_key=bytes(COLD.verify_key), epoch=3, not_before_s=1_000, not_after_s=2_000
    )
    other = {"body": b"Body", "signature": bytes(64), "delegation": rotated}
    changed = dataclasses.replace(signed("open", b"body"), **{field: other[field]})  # type: ignore[arg-type]
    with pytest.raises(Malformed, match="not signed"):
        SignedMessage.decode("open", changed.encode())


def test_the_cold_key_may_not_sign_in_the_place_of_the_hot_one() -> None:
    message = signed("open", b"body")
    by_cold = bytes(COLD.sign(message.digest).signature)
    with pytest.raises(Malformed, match="hot key"):
        SignedMessage.decode("open", dataclasses.replace(message, signature=by_cold).encode())


def test_a_delegation_of_too_many_bytes_is_malformed() -> None:
    padded = cbor.encode([b"body", bytes(1025), bytes(64)])
    with pytest.raises(Malformed, match="at most 1024"):
        SignedMessage.decode("open", padded)


def test_issuing_signs_with_the_participants_own_key() -> None:
    key = SigningKey(b"x" * 32)
    issued = Delegation.issue(key, hot_key=bytes(HOT.verify_key), epoch=1, not_before_s=0, not_after_s=1)
    assert issued.participant == bytes(key.verify_key)
    assert (issued.scope, issued.revocation_sequence) == ("all", 0)
