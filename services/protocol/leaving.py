"""Closing connections that their clients may just be about to use."""

import asyncio
import contextlib
import fcntl
import os
import socket
import termios


def is_waiting(transport: asyncio.BaseTransport) -> bool:
    """Whether bytes came that were not read yet."""
    connection = transport.get_extra_info("socket")
    if connection is None or transport.is_closing():
        return False
    try:
        waiting = fcntl.ioctl(connection.fileno(), termios.FIONREAD, bytes(4))
    except (OSError, ValueError):  # gone meanwhile
        return False
    return any(waiting)


def say_goodbye(transport: asyncio.BaseTransport) -> None:
    """Tell the client at once that no answer will follow; to close takes until the loop's next turn.

    Until a client knows it, it may send a request that nobody will read.
    """
    connection = transport.get_extra_info("socket")
    if connection is None:
        return
    with contextlib.suppress(OSError, ValueError), socket.socket(fileno=os.dup(connection.fileno())) as ours:
        ours.shutdown(socket.SHUT_WR)
