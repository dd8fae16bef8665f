"""One seed, split by name: what one part of a run draws never depends on what another part draws."""

import random
from hashlib import sha256


def stream(seed: int, name: str) -> random.Random:
    """The source of everything that the part called ``name`` draws in the run of ``seed``."""
    return random.Random(int.from_bytes(sha256(f"odsi simulation {seed} {name}".encode()).digest(), "big"))
