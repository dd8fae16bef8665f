"""``python -m odsi_proto.cli``: the way to the program that needs no installed script."""

from odsi_proto.cli.main import main

if __name__ == "__main__":
    main()
