"""The one way to make an id. Ids are not secrets: they come from the generator that costs no system call."""

import random
import re
import time

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def uuid7() -> str:
    """A UUIDv7 (RFC 9562) as text: sorts by creation time to the millisecond."""
    time_ms = f"{time.time_ns() // 1_000_000:012x}"
    tail = f"{random.getrandbits(76):019x}"
    return f"{time_ms[:8]}-{time_ms[8:]}-7{tail[:3]}-{VARIANTS[tail[3]]}{tail[4:7]}-{tail[7:]}"


def request_id(offered: str | None) -> str:
    """The caller's id when it is 1-128 characters of `[A-Za-z0-9._-]`, otherwise a new one."""
    if offered is not None and REQUEST_ID.fullmatch(offered):
        return offered
    return uuid7()


def child_traceparent(offered: str | None) -> str:
    """The W3C `traceparent` of this hop: the caller's trace with a span of ours, or a new trace."""
    if offered is not None:
        match = TRACEPARENT.fullmatch(offered)
        if match and match[1] != "0" * 32 and match[2] != "0" * 16:
            return f"00-{match[1]}-{random.getrandbits(64) | 1:016x}-{match[3]}"
    digits = f"{random.getrandbits(192) | (1 << 64) | 1:048x}"  # neither part may be zero
    return f"00-{digits[:32]}-{digits[32:]}-01"
