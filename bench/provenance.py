"""Which sources a figure is of."""

import subprocess
from pathlib import Path


def commit() -> str:
    """Of the checkout that this module is in, marked if files were changed; empty if git does not say."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
