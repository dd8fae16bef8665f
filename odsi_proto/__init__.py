"""ODSI-Proto: the reference implementation of open, decentralised, scalable LLM inference."""

__version__ = "0.1.0"
