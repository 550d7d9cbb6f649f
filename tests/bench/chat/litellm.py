"""LiteLLM's proxy over the same provider, in an environment of its own: `LITELLM_PYTHON` interprets it."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from services.testing import free_port
from tests.bench.chat.house import body_of
from tests.bench.load import Load

START_TIMEOUT_S: Final = 90.0
KEY: Final = "sk-bench"

CONFIG: Final = """
model_list:
  - model_name: fast
    litellm_params:
      model: openai/instant
      api_base: {url}/v1
      api_key: none
general_settings:
  master_key: {key}
"""


@dataclass(frozen=True)
class Proxy:
    url: str

    def load(self) -> Load:
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        return Load(f"{self.url}/v1/chat/completions", [body_of("fast")], headers, 32, 8.0)


@contextmanager
def proxy(upstream_url: str, folder: Path) -> Iterator[Proxy | None]:
    """The proxy with one worker, once it serves; None where there is no environment for it."""
    python = os.environ.get("LITELLM_PYTHON")
    if python is None:
        yield None
        return
    config = folder / "litellm.yaml"
    config.write_text(CONFIG.format(url=upstream_url, key=KEY))
    port = free_port()
    command = [str(Path(python).parent / "litellm"), "--config", str(config), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONPATH": ""}
    with (folder / "litellm.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, process)
            yield Proxy(url)
        finally:
            process.terminate()
            process.wait(30)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "the proxy did not start"
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/health/liveliness", timeout=5.0, trust_env=False).is_success:
                return
        time.sleep(0.2)
    raise AssertionError("the proxy did not serve in time")
