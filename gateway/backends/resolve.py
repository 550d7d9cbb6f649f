"""Names that stand for many replicas: one URL for each address that a name has."""

import asyncio
import ipaddress
import socket
from urllib.parse import urlsplit


def is_name(url: str) -> bool:
    """Whether the host of a URL is a name that may have several addresses, and other ones later."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


async def resolved(url: str) -> list[str]:
    """The URLs of a name's addresses, in a fixed order, if any. An address stands for itself."""
    if not is_name(url):
        return [url]
    parts = urlsplit(url)
    port = parts.port or 80
    try:
        found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    hosts = sorted({str(address[0]) for *_, address in found})
    return [f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}{parts.path}" for host in hosts]
