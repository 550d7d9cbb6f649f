"""A flood of made-up keys, as fast as wrk sends them, and what a caller with a good key notices of it."""

import asyncio
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from services.keys import KeyGrant, KeyStore
from tests.processes import Running, running

pytestmark = [
    pytest.mark.bench,
    pytest.mark.enable_socket,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed"),
]

DAEMONS: Final = ("EMBEDD", "VECTORD", "CHATD", "DISTILL", "VALIDATORS")
BODY: Final = b'{"kind":"fill","artifact":{"order_id":"o-1","fills":[]}}'
SECONDS: Final = 10.0
PACE_S: Final = 0.01
CALLERS: Final = 4
P99_MS_MAX: Final = 50.0

FLOOD: Final = """
math.randomseed(os.time())
function request()
  local key = string.format("Bearer sh-%%08x%%08x", math.random(0, 2^31), math.random(0, 2^31))
  local headers = {authorization = key, ["content-type"] = "application/json"}
  return wrk.format("%(method)s", "%(path)s", headers, %(body)s)
end
function done(summary)
  io.write(string.format("\\nsent %%d in %%f\\n", summary.requests, summary.duration / 1e6))
end
"""


@contextmanager
def flooded(url: str, method: str, path: str, connections: int, folder: Path) -> Iterator[list[str]]:
    """wrk on one thread, for as long as the block takes and a little longer; what it says, at the end."""
    script = folder / "flood.lua"
    body = f"'{BODY.decode()}'" if method == "POST" else "nil"
    script.write_text(FLOOD % {"method": method, "path": path, "body": body})
    said: list[str] = []
    command = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS + 3:g}s", "-s", str(script), url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as wrk:
        yield said
        out, _ = wrk.communicate(timeout=60)
    said += [line for line in out.splitlines() if line.startswith("sent")]


async def paced(url: str, key: str) -> list[float]:
    """Seconds that each request took, 100 of them a second, counted from when it was due."""
    parts = urlsplit(url)
    head = f"POST /v1/validate HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    request = (
        head.encode() + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY
    )
    started = time.perf_counter()

    async def caller(first: int) -> list[float]:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        took: list[float] = []
        for number in range(first, int(SECONDS / PACE_S), CALLERS):
            due = started + number * PACE_S
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200"), answer
            await reader.readexactly(
                int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            )
            took.append(time.perf_counter() - due)
        writer.close()
        return took

    async with asyncio.timeout(SECONDS + 60):
        return [seconds for each in await asyncio.gather(*map(caller, range(CALLERS))) for seconds in each]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[tuple[Running, str]]:
    key, _ = KeyStore(tmp_path / "data").create(KeyGrant(name="bench"))
    with running("tests.bench.gateway.instant", tmp_path) as stub:
        env = {f"GATEWAY_{name}_URLS": stub.url for name in DAEMONS}
        with running("gateway", tmp_path, env=env) as gateway:
            yield gateway, key


@pytest.mark.parametrize("connections", [32, 256])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/validate"), ("GET", "/v1/models"), ("GET", "/v1/collections/notes")]
)
def test_good_keys_are_served_through_a_flood_of_bad_ones(
    tmp_path: Path, house: tuple[Running, str], method: str, path: str, connections: int
) -> None:
    gateway, key = house
    with flooded(gateway.url, method, path, connections, tmp_path) as said:
        time.sleep(1)
        took = asyncio.run(paced(gateway.url, key))
    cuts = [1000 * cut for cut in statistics.quantiles(took, n=100)]
    sent, seconds = float(said[0].split()[1]), float(said[0].split()[3])
    print(
        f"\n{method} {path}, {connections} connections: {sent / seconds:,.0f} bad keys a second;"
        f" {len(took)} good requests, p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms"
    )
    assert len(took) == SECONDS / PACE_S
    assert cuts[98] <= P99_MS_MAX
