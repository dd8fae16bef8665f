"""Options and profiles of the whole suite."""

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=100)
settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Goldens change only on request, and the change is reviewed like code."""
    parser.addoption("--rewrite", action="store_true", help="write golden files anew")
