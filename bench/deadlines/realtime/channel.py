"""What the processes of a run tell each other: a JSON object a line, over a Unix socket."""

import json
import socket
from typing import Any, NoReturn

from odsi_proto.errors import ConfigError


class Channel:
    """The parent's end of the socket to a child."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._lines = connection.makefile("rb")

    def fileno(self) -> int:
        """To wait for it."""
        return self.socket.fileno()

    def tell(self, **values: Any) -> None:
        """Send an object."""
        self.socket.sendall(json.dumps(values).encode() + b"\n")

    def receive_file(self) -> int:
        """The file that the child hands over first; raises ``ConfigError`` as :meth:`hear` does."""
        begun, files, _, _ = socket.recv_fds(self.socket, 1, 1)
        if files:
            return files[0]
        return self._no_file(begun)

    def _no_file(self, begun: bytes) -> NoReturn:
        self._parse(begun + self._lines.readline() if begun else b"")
        raise ConfigError("a process of the run handed over no device")

    def hear(self) -> dict[str, Any]:
        """The next object; raises ``ConfigError`` with what the child says went wrong, or if it is gone."""
        return self._parse(self._lines.readline())

    def _parse(self, line: bytes) -> dict[str, Any]:
        if not line:
            raise ConfigError("a process of the run ended early")
        heard: dict[str, Any] = json.loads(line)
        if "error" in heard:
            raise ConfigError(heard["error"])
        return heard

    def close(self) -> None:
        """The child ends when it sees this."""
        self._lines.close()
        self.socket.close()
