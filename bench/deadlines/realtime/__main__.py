"""``python -m bench.deadlines.realtime``."""

import sys

from bench.deadlines.realtime.main import main

if __name__ == "__main__":
    sys.exit(main())
