"""Warm calls, one text each: against the Go reference, against a sidecar chain, and in both encodings."""

import os
import re
import signal
import statistics
import subprocess
from pathlib import Path

import numpy as np
import openai
import pytest

from tests.bench.house import TIMEOUT_S, WARM_TEXTS, House, bodies_of, house
from tests.bench.load import Load, Outcome
from tests.bench.ollama_stub import MODEL, vectors_of
from tests.bench.wrk import offered
from tests.processes import running

pytestmark = [pytest.mark.bench, pytest.mark.enable_socket, pytest.mark.timeout(300)]

PEERS = os.environ.get("BENCH_PEERS", "")
PEERS_STUB_PORT = 11500  # set by the script of the peers
SCRIPT_TIMEOUT_S = 240.0
ROUNDS = 3

GO_RATIO_MIN = 2.0
SIDECAR_RATIO_MIN = 63.0
SIDECAR_LATENCY_MS = 7.0
BASE64_RATIO_MIN = 0.95  # no dearer than floats, within what two runs differ by

ROUND = re.compile(r"candidate ([0-9.]+)/s p99 ([0-9.]+)(us|ms|s) \| go ([0-9.]+)/s p99 ([0-9.]+)(us|ms|s)")
MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


def test_one_text_a_request(tmp_path: Path) -> None:
    with house(tmp_path) as ours:
        ours.warm()
        load = ours.load(bodies_of(WARM_TEXTS))
        rounds = [offered(load, tmp_path) for _ in range(ROUNDS)]
    print(f"\nwarm, 1 text, 32 connections: {Outcome.median(rounds)}")


def side_by_side(ours: House) -> str:
    """What the peers' script says: a line a round."""
    command = ["bash", str(Path(PEERS) / "embed_ratio.sh"), ours.url, "5", "4"]
    environment = {**os.environ, "API_KEY": ours.key}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as script:
        try:
            said, _ = script.communicate(timeout=SCRIPT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(script.pid, signal.SIGTERM)  # the peers that it started too
            raise
    assert script.returncode == 0, said
    return said


@pytest.mark.skipif(not PEERS, reason="BENCH_PEERS names no folder with embed_ratio.sh, the Go reference")
def test_one_text_a_request_against_go(tmp_path: Path) -> None:
    with house(tmp_path, stub_port=PEERS_STUB_PORT) as ours:
        ours.warm()
        rounds = ROUND.findall(side_by_side(ours))
    rate, go_rate = (statistics.median(float(each[n]) for each in rounds) for n in (0, 3))
    p99, go_p99 = (statistics.median(float(each[n]) * MS[each[n + 1]] for each in rounds) for n in (1, 4))
    print(
        f"\nwarm, 1 text, 32 connections: {rate:,.0f}/s, p99 {p99:.2f} ms; Go {go_rate:,.0f}/s,"
        f" p99 {go_p99:.2f} ms; ratio {rate / go_rate:.2f}"
    )
    assert rate >= GO_RATIO_MIN * go_rate
    assert p99 <= go_p99


def test_one_text_a_request_against_a_sidecar(tmp_path: Path) -> None:
    with (
        house(tmp_path, latency_ms=SIDECAR_LATENCY_MS) as ours,
        running("tests.bench.sidecar.sidecar", tmp_path, env={"OLLAMA_URL": ours.stub.url}) as sidecar,
        running("tests.bench.sidecar.front", tmp_path, env={"SIDECAR_URL": sidecar.url}) as front,
    ):
        ours.warm()
        bodies = bodies_of(WARM_TEXTS)
        rounds = [
            (offered(ours.load(bodies), tmp_path), offered(Load(f"{front.url}/v1/embed", bodies), tmp_path))
            for _ in range(ROUNDS)
        ]
    mine = Outcome.median([pair[0] for pair in rounds])
    theirs = Outcome.median([pair[1] for pair in rounds])
    print(f"\nwarm, 1 text: {mine}; sidecar chain {theirs}; ratio {mine.rate / theirs.rate:.1f}")
    assert mine.rate >= SIDECAR_RATIO_MIN * theirs.rate


def test_base64_costs_no_more_than_floats(tmp_path: Path) -> None:
    with house(tmp_path) as ours:
        ours.warm("float")
        ours.warm("base64")
        with openai.OpenAI(
            base_url=f"{ours.gateway.url}/v1",
            api_key=ours.key,
            timeout=TIMEOUT_S,
            http_client=openai.DefaultHttpxClient(trust_env=False),
        ) as client:
            answer = client.embeddings.create(model=MODEL, input=list(WARM_TEXTS))
        np.testing.assert_allclose([row.embedding for row in answer.data], vectors_of(WARM_TEXTS), atol=1e-6)
        loads = [ours.load(bodies_of(WARM_TEXTS, encoding)) for encoding in ("base64", "float")]
        rounds = [[offered(load, tmp_path) for load in loads] for _ in range(ROUNDS)]
    base64, floats = (Outcome.median([each[n] for each in rounds]) for n in (0, 1))
    print(f"\nwarm, 1 text: base64 {base64}; float {floats}; ratio {base64.rate / floats.rate:.2f}")
    assert base64.rate >= BASE64_RATIO_MIN * floats.rate
