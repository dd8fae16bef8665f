"""A network namespace of one process, with one TUN device in it. Linux.

The namespace and its device belong to the process and to whoever holds the device's file: when both are
gone the kernel removes them. Nothing outside is touched, and nothing is left to clean up.
"""

import array
import ctypes
import fcntl
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path

from odsi_proto.errors import ConfigError

DEVICE = b"odsi"
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_IFF_UP, _IFF_RUNNING = 0x0001, 0x0040
_SET_FLAGS, _SET_ADDRESS, _SET_NETMASK, _SET_MTU, _SET_QUEUE = 0x8914, 0x8916, 0x891C, 0x8922, 0x8943
_NETMASK = "255.255.255.0"
_QUEUE_PACKETS = 10_000
"""Of the device: the relay alone drops packets, unless it falls far behind."""
_TCP = Path("/proc/sys/net/ipv4")
"""Of the namespace that the process is in."""

NEEDS = (
    "the real-time part needs Linux with /dev/net/tun, and root or unprivileged user namespaces, "
    "to give each process a network of its own"
)


def enter(address: str, mtu_bytes: int, tcp_congestion: str, tcp_unsent_bytes: int | None) -> int:
    """Move this process into a new namespace that has this address; the file of its TUN device.

    ``tcp_unsent_bytes`` bounds what waits in a TCP socket without having been sent (TCP_NOTSENT_LOWAT).
    Raises ``ConfigError`` where that can not be had.
    """
    try:
        _leave_network()
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH", DEVICE, _IFF_TUN | _IFF_NO_PI))
        _configure(address, mtu_bytes)
    except (OSError, AttributeError) as error:
        raise ConfigError(f"{NEEDS}: {error}") from error
    try:
        (_TCP / "tcp_congestion_control").write_text(tcp_congestion, encoding="ascii")
        if tcp_unsent_bytes is not None:
            (_TCP / "tcp_notsent_lowat").write_text(str(tcp_unsent_bytes), encoding="ascii")
    except OSError as error:
        allowed = (_TCP / "tcp_allowed_congestion_control").read_text(encoding="ascii")
        raise ConfigError(
            f"no TCP with {tcp_congestion} here, but with {allowed.strip()}: {error}"
        ) from error
    # No chatter of IPv6 on it; where there is no IPv6, there is nothing to switch off.
    with suppress(OSError):
        Path(f"/proc/sys/net/ipv6/conf/{DEVICE.decode()}/disable_ipv6").write_text("1", encoding="ascii")
    return tun


def send_file(channel: socket.socket, file: int) -> None:
    """Hand a file to the process at the other end of a Unix socket."""
    socket.send_fds(channel, [b"\n"], [file])


def _leave_network() -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(_CLONE_NEWNET) and library.unshare(_CLONE_NEWUSER | _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, f"unshare: {os.strerror(code)}")


def _configure(address: str, mtu_bytes: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:

        def set_up(request: int, device: bytes, value: bytes) -> None:
            fcntl.ioctl(control, request, array.array("B", struct.pack("16s24s", device, value)))

        set_up(_SET_FLAGS, b"lo", struct.pack("H", _IFF_UP | _IFF_RUNNING))
        set_up(_SET_ADDRESS, DEVICE, _socket_address(address))
        set_up(_SET_NETMASK, DEVICE, _socket_address(_NETMASK))
        set_up(_SET_MTU, DEVICE, struct.pack("i", mtu_bytes))
        set_up(_SET_QUEUE, DEVICE, struct.pack("i", _QUEUE_PACKETS))
        set_up(_SET_FLAGS, DEVICE, struct.pack("H", _IFF_UP | _IFF_RUNNING))


def _socket_address(address: str) -> bytes:
    return struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
