"""Callers that hang up, a distill that is down, a chatd that is killed: no record is lost."""

import httpx
import pytest

from tests.integration.chatd.conftest import Distill, Ollama, Setting

MESSAGES = [{"role": "user", "content": "hello"}]


def ask(url: str, model: str = "talk") -> httpx.Response:
    return httpx.post(
        f"{url}/v1/chat/completions", json={"model": model, "messages": MESSAGES}, trust_env=False
    )


@pytest.mark.parametrize("stream", [True, False])
def test_hanging_up_before_the_first_token_cancels_the_model(
    setting: Setting, ollama: Ollama, distill: Distill, stream: bool
) -> None:
    with distill.serving(), setting.chatd() as chatd:
        body = {"model": "silent", "messages": MESSAGES, "stream": stream}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{chatd.url}/v1/chat/completions", json=body, timeout=0.5, trust_env=False)
        assert ollama.gone.wait(10)
        (record,) = distill.wait_for(1)
    assert record["attempts"][0]["status"] == "aborted"


def test_hanging_up_in_the_middle_cancels_the_model(
    setting: Setting, ollama: Ollama, distill: Distill
) -> None:
    with distill.serving(), setting.chatd() as chatd:
        body = {"model": "slow", "messages": MESSAGES, "stream": True}
        url = f"{chatd.url}/v1/chat/completions"
        with httpx.Client(trust_env=False) as client, client.stream("POST", url, json=body) as response:
            next(response.iter_bytes())
        assert ollama.gone.wait(10)
        (record,) = distill.wait_for(1)
    assert record["attempts"][0]["status"] == "aborted"
    assert record["output"]["content"].startswith("drip ")


def test_records_outlive_a_killed_chatd(setting: Setting, distill: Distill) -> None:
    with setting.chatd() as chatd:
        runs = [ask(chatd.url).headers["x-run-id"] for _ in range(3)]
        chatd.kill()
    assert distill.records == []
    with distill.serving(), setting.chatd():
        records = distill.wait_for(3)
    assert [record["run_id"] for record in records] == runs
    assert not list((setting.folder / "data" / "chatd" / "spool").glob("segment-*"))


def test_records_wait_for_distill_without_holding_up_the_caller(setting: Setting, distill: Distill) -> None:
    with setting.chatd() as chatd:
        assert ask(chatd.url).is_success
        assert ask(chatd.url, "absent").status_code == 404
        ready = httpx.get(f"{chatd.url}/readyz", trust_env=False)
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        with distill.serving():
            records = distill.wait_for(2)
    assert [record["attempts"][0]["status"] for record in records] == ["ok", "failed"]


def test_without_any_provider_it_is_not_ready_and_says_so(setting: Setting) -> None:
    with setting.chatd(OLLAMA_HOST="http://127.0.0.1:9") as chatd:
        ready = httpx.get(f"{chatd.url}/readyz", trust_env=False)
        answer = ask(chatd.url)
    assert ready.status_code == 503
    assert "ollama" in ready.json()["dependencies"]["providers"]["reason"]
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "ollama_down")
