"""Options and profiles of the whole suite."""

import os
import signal
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

PROFILE_VARIABLE = "ODSI_HYPOTHESIS_PROFILE"
"""Chooses a profile where no ``--hypothesis-profile`` does."""

# No deadlines: a machine that is busy with something else is no failure of a test.
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("dev", deadline=None, max_examples=40)
settings.register_profile("nightly", deadline=None, max_examples=2_000, print_blob=True)
settings.load_profile(os.environ.get(PROFILE_VARIABLE, "ci"))


def pytest_configure() -> None:
    """A run started in the background may have Ctrl-C ignored, and its programs would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Goldens change only on request, and the change is reviewed like code."""
    parser.addoption("--rewrite", action="store_true", help="write golden files anew")


@pytest.fixture(autouse=True)
def _logs_as_the_library_leaves_them() -> Iterator[None]:
    """A command that ran in this process configured a log whose stream is gone with its test."""
    yield
    structlog.reset_defaults()
