"""The one way to make an id."""

import os
import re
import secrets
import time

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def uuid7() -> str:
    """A UUIDv7 (RFC 9562) as text: sorts by creation time to the millisecond."""
    ms = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    rand_a = random >> 68
    rand_b = random & ((1 << 62) - 1)
    value = (ms & ((1 << 48) - 1)) << 80 | 0x7 << 76 | (rand_a & 0xFFF) << 64 | 0b10 << 62 | rand_b
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def request_id(offered: str | None) -> str:
    """The caller's id when it is 1-128 characters of `[A-Za-z0-9._-]`, otherwise a new one."""
    if offered is not None and REQUEST_ID.fullmatch(offered):
        return offered
    return uuid7()


def child_traceparent(offered: str | None) -> str:
    """The W3C `traceparent` of this hop: the caller's trace with a span of ours, or a new trace."""
    match = TRACEPARENT.fullmatch(offered or "")
    if match and match[1] != "0" * 32 and match[2] != "0" * 16:
        return f"00-{match[1]}-{secrets.token_hex(8)}-{match[3]}"
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
