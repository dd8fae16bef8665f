"""``specs/cddl`` against the code: both accept the same messages, but for what CDDL can not say."""

import random
from typing import Any

import pytest
from cddl_verifier import Validator
from specs.bodies import BODIES, CANCEL, COMMIT, DELEGATION, HELLO, OPEN, SIGNER, items_of
from specs.documents import SPECS
from specs.edges import ARRAYS, cases

from odsi_proto.errors import Malformed
from odsi_proto.wire import cbor
from odsi_proto.wire.identity import Delegation, SignedMessage
from odsi_proto.wire.messages import Cancel, Commit, Hello, Open

FILES = ("common", "hello", "open", "commit", "cancel", "signed-message")
RULES: dict[str, tuple[bytes, Any]] = {
    "hello": (HELLO.encode(), Hello.decode),
    "open": (OPEN.encode(), Open.decode),
    "commit": (COMMIT.encode(), Commit.decode),
    "cancel": (CANCEL.encode(), Cancel.decode),
}
RULE_OF = {
    "DelegationOuter": "delegation",
    "Delegation": "delegation-body",
    "SignedMessage": "signed-cancel",
    "StagePlan": "stage-plan",
    **{name: name.lower() for name in ("Hello", "Setting", "Offer", "Extension", "Open", "Deadline")},
    **{name: name.lower() for name in ("Commit", "Cancel")},
}
"""From the tables of the documents to the rules of the schema."""

UNSIGNED = ("layers", "codecs")
"""Words of the code's complaints that CDDL has no words for: ranges, and codecs that follow from stages."""
MUTATIONS = 400


@pytest.fixture(scope="module")
def schema() -> Validator:
    return Validator("\n".join((SPECS / "cddl" / f"{name}.cddl").read_text() for name in FILES))


def mutated(value: Any, source: random.Random) -> Any:
    """A value with one item somewhere changed, dropped, added or replaced."""
    if isinstance(value, list) and value and source.random() < 0.8:
        at, changed = source.randrange(len(value)), list(value)
        match source.randrange(6):
            case 0:
                del changed[at]
            case 1:
                changed.insert(at, source.choice([0, b"", "text", []]))
            case _:
                changed[at] = mutated(value[at], source)
        return changed
    match value, source.randrange(4):
        case int(), 0:
            return value + 1
        case int(), 1:
            return source.choice([0, 63, 64, 4096, 4097, 1 << 20, (1 << 20) + 1, 1 << 30, 1 << 62, 2**64 - 1])
        case bytes(), 0:
            return value[:-1]
        case bytes(), 1:
            return value + b"\0"
        case list(), 0:
            return value * source.choice([1, 40, 64, 65])
        case _:
            return source.choice([0, 1, b"", b"x" * 32, "text", [], [[]]])


def accepts(decode: Any, raw: bytes) -> str:
    """The code's complaint; empty if it has none."""
    try:
        decode(raw)
    except Malformed as error:
        return str(error)
    return ""


@pytest.mark.parametrize("rule", RULES)
def test_what_the_code_writes_is_valid(schema: Validator, rule: str) -> None:
    raw, _ = RULES[rule]
    assert schema.validate(raw, rule).errors == ()


@pytest.mark.parametrize("rule", RULES)
def test_the_schema_and_the_code_refuse_the_same_mutations(schema: Validator, rule: str) -> None:
    raw, decode = RULES[rule]
    source, verdicts = random.Random(rule), {True: 0, False: 0}
    items = items_of(raw)
    for _ in range(MUTATIONS):
        changed = cbor.encode(mutated(items, source))
        complaint, is_valid = accepts(decode, changed), schema.validate(changed, rule).valid
        verdicts[is_valid] += 1
        if is_valid and complaint:
            assert any(word in complaint for word in (*UNSIGNED, "signed", "delegation")), complaint
        else:
            assert is_valid is not bool(complaint), complaint or changed.hex()
    assert min(verdicts.values()) > MUTATIONS // 50, "the mutations must show both verdicts"


def test_every_table_has_a_rule() -> None:
    assert set(RULE_OF) == set(ARRAYS)


@pytest.mark.parametrize(("name", "index", "value", "fits"), cases())
def test_the_schema_has_the_bounds_of_the_documents(
    schema: Validator, name: str, index: int, value: Any, fits: bool
) -> None:
    items = list(BODIES[name].items)
    items[index] = value
    assert schema.validate(cbor.encode(items), RULE_OF[name]).valid is fits


@pytest.mark.parametrize("domain", ["open", "commit", "cancel"])
def test_a_signed_message_is_valid_under_its_own_domain_only(schema: Validator, domain: str) -> None:
    raw, _ = RULES[domain]
    message = SignedMessage.sign(SIGNER, domain, raw).encode()
    valid = {
        other for other in ("open", "commit", "cancel") if schema.validate(message, f"signed-{other}").valid
    }
    assert valid == {domain}


@pytest.mark.parametrize("length", [63, 65])
def test_a_signature_of_another_length_is_refused(schema: Validator, length: int) -> None:
    items = items_of(SignedMessage.sign(SIGNER, "cancel", CANCEL.encode()).encode())
    items[2] = bytes(length)
    raw = cbor.encode(items)
    assert not schema.validate(raw, "signed-cancel").valid
    assert accepts(lambda data: SignedMessage.decode("cancel", data), raw)


def test_a_delegation_is_checked_inside_its_byte_string(schema: Validator) -> None:
    outer = items_of(DELEGATION.encode())
    inner = list(BODIES["Delegation"].items)
    assert schema.validate(DELEGATION.encode(), "delegation").valid
    inner[3] = "x" * 33
    changed = cbor.encode([cbor.encode(inner), outer[1]])
    assert not schema.validate(changed, "delegation").valid
    assert accepts(Delegation.decode, changed)
