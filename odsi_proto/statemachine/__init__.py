"""The rules: total transition tables, and one endpoint per role that composes them. Sans-IO.

Bytes and time come in through mutators, each of which takes ``now`` and returns its effects; the
driver carries them out. Nothing here opens a socket, reads a clock or draws a random number.
"""
