"""How a command ends with somebody else: on a signal, or with the program that started it."""

import asyncio
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from odsi_proto.cli.failures import Terminated

T = TypeVar("T")

_PR_SET_PDEATHSIG = 1
"""From Linux's <sys/prctl.h>."""


def run_until_signal(work: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run``, with SIGTERM treated as Ctrl-C is: the work is cancelled and cleans up.

    Raises ``KeyboardInterrupt`` or ``Terminated`` once it has.
    """
    terminated = False

    async def supervised() -> T:
        task = asyncio.current_task()
        assert task is not None

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        return await work

    try:
        return asyncio.run(supervised())
    except asyncio.CancelledError:
        if terminated:
            raise Terminated from None
        raise


@contextmanager
def terminated_as_exception() -> Iterator[None]:
    """For work without a loop: SIGTERM raises ``Terminated`` as Ctrl-C raises ``KeyboardInterrupt``."""
    if threading.current_thread() is not threading.main_thread():  # only it may set handlers
        yield
        return

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends, however that happens.

    Only Linux can; elsewhere the end of the pipe from the parent has to do (see below).
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def on_end_of_input(act: Callable[[], None]) -> None:
    """Call ``act`` once, in the running loop, when standard input ends: the parent let go of it."""
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()

    def readable() -> None:
        if not os.read(descriptor, 4_096):
            loop.remove_reader(descriptor)
            act()

    loop.add_reader(descriptor, readable)
