"""wrk as the load, where it is installed: it takes less of the machine than a generator in Python."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

import orjson

from tests.bench.load import GRACE_S, Load, Outcome, generate

SCRIPT: Final = """
wrk.method = "POST"
local headers = {%(headers)s}
local bodies = {%(bodies)s}
for name, value in pairs(headers) do wrk.headers[name] = value end
local sent = 0
function request()
  sent = sent + 1
  return wrk.format(nil, nil, nil, bodies[sent %% #bodies + 1])
end
function done(summary, latency)
  local errors = summary.errors
  local failures = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format('\\n{"requests":%%d,"seconds":%%f,"p50_ms":%%f,"p99_ms":%%f,"failures":%%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    failures))
end
"""


def offered(load: Load, folder: Path) -> Outcome:
    """Load a server by wrk, or by our own generator where wrk is absent or cannot make the bodies."""
    wrk = shutil.which("wrk")
    if wrk is None or load.numbered:
        return generate(load, folder)
    script = folder / "load.lua"
    script.write_text(_script(load))
    done = subprocess.run(
        [wrk, "-t1", f"-c{load.connections}", f"-d{load.seconds:g}s", "-s", str(script), load.url],
        stdout=subprocess.PIPE,
        timeout=load.seconds + GRACE_S,
        check=True,
    )
    told = next(line for line in done.stdout.splitlines() if line.startswith(b"{"))
    return Outcome(**orjson.loads(told))


def _script(load: Load) -> str:
    return SCRIPT % {
        "headers": ",".join(f"[ {_quoted(name)} ]={_quoted(value)}" for name, value in load.headers.items()),
        "bodies": ",".join(map(_quoted, load.bodies)),
    }


def _quoted(text: str) -> str:
    assert "]==]" not in text
    return f"[==[{text}]==]"
