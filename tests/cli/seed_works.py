"""Work for the processes of ``odsi sim swarm`` that goes wrong for some seeds."""

import os
import signal
import threading

DIES, HANGS, RAISES = 3, 5, 7


def double(seed: int) -> int:
    """Twice the seed, unless it is one of those above."""
    if seed == DIES:
        os.kill(os.getpid(), signal.SIGKILL)
    if seed == HANGS:
        hang(seed)
    if seed == RAISES:
        os._exit(9)
    return 2 * seed


def hang(_seed: int) -> None:
    """Never comes back."""
    threading.Event().wait()
