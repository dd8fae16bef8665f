"""``python -m bench.kernels``."""

import os
import sys

# Before torch is imported, which counts cores when it starts; and nobody may look for a model on the net.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from bench.kernels.main import main

if __name__ == "__main__":
    sys.exit(main())
