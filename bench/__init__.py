"""Measurements of the project, each a module to be run: ``python -m bench.wire``."""
