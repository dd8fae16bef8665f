"""Fixtures of the protocol tests."""

import pytest
from statemachine.protocol_path import Path, make_path

from odsi_proto.limits import Limits


@pytest.fixture
def path() -> Path:
    """Three stages with the default limits."""
    return make_path(3, Limits())
