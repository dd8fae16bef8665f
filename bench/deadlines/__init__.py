"""Deadlines met beside bulk, over a simulated link and a real one: ``python -m bench.deadlines``."""
