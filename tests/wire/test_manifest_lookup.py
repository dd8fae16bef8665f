"""Finding tensors in a manifest, and texts that are too long to be one."""

import pytest
from wire.test_manifest import MANIFEST

from odsi_proto.errors import ModelError
from odsi_proto.wire.manifest import SIDECAR_BYTES_MAX, from_sidecar


def test_a_tensor_is_found_by_its_name() -> None:
    assert MANIFEST.entry("t3") is MANIFEST.tensors[3]


def test_a_name_that_no_tensor_has_finds_none() -> None:
    assert MANIFEST.entry("t5") is None


def test_a_text_above_the_limit_is_refused_unread() -> None:
    with pytest.raises(ModelError, match="expected at most"):
        from_sidecar(" " * (SIDECAR_BYTES_MAX + 1), "a file")
