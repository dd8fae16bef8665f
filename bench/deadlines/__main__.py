"""``python -m bench.deadlines``."""

import sys

from bench.deadlines.main import main

if __name__ == "__main__":
    sys.exit(main())
