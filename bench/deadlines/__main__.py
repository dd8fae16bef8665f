"""``python -m bench.deadlines``."""

import signal
import sys

from bench.deadlines.main import main

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as an interrupt: shows what it has
    sys.exit(main())
