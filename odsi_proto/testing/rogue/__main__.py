"""``python -m odsi_proto.testing.rogue`` prints the catalogue."""

import sys

from odsi_proto.testing.rogue import table

if __name__ == "__main__":
    sys.stdout.write(table())
