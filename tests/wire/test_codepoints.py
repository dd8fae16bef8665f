"""What an unknown number means."""

import pytest

from odsi_proto.wire.codepoints import ErrorCode, is_ignorable


@pytest.mark.parametrize(("number", "name"), [(0x10, "STALE"), (0x1234, "error 0x1234")])
def test_an_error_code_has_a_name_or_its_number(number: int, name: str) -> None:
    assert ErrorCode.name_of(number) == name


@pytest.mark.spec("WIRE-030")
@pytest.mark.parametrize("n", range(8))
def test_every_reserved_number_is_ignorable(n: int) -> None:
    assert is_ignorable(62 * n + 27)
    assert not is_ignorable(62 * n + 28)
