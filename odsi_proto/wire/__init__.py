"""Bytes to values and back. No state, no clocks, no randomness, no I/O."""
