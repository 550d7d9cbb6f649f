"""A `chatd.toml` in a daemon: every provider asked through its door, the file exchanged meanwhile."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from chatd.app import create_app
from chatd.settings import Settings
from services.testing import client_for
from tests.stubs.chat.formats import FORMATS, SSE, Said, refusal, streamed, whole
from tests.stubs.chat.wire import PATIENCE_S, Reply, WireServer

pytestmark = pytest.mark.anyio

KINDS = sorted(FORMATS)


class Setting:
    """One stub server for each kind of provider, and a daemon that knows them all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers = {kind: WireServer(listed=Reply([b"{}"])) for kind in KINDS}
        self.path = folder / "chatd.toml"

    def write(self, extra: str = "", **tables: str) -> None:
        text = "".join(
            f'[providers.{kind}]\ntype = "{kind}"\nbase_url = "{server.url}"\n'
            f"retries = {{ attempts_max = 1 }}\n{tables.get(kind, '')}\n"
            for kind, server in self.servers.items()
        )
        aside = self.path.with_suffix(".new")
        aside.write_text(text + extra)
        os.replace(aside, self.path)  # noqa: PTH105 - what is meant

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[httpx.AsyncClient]:
        async with contextlib.AsyncExitStack() as stack:
            for server in self.servers.values():
                await stack.enter_async_context(server)
            self.write()
            settings = Settings(
                data=self.folder / "data", config=self.path, config_poll_s=0.01, spool_linger_s=0.0
            )
            yield await stack.enter_async_context(client_for(create_app(settings)))


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


def body(kind: str, *, stream: bool = False, **extra: Any) -> dict[str, Any]:
    asked = {"model": f"{kind}/m", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    return {**asked, **extra}


async def post(client: httpx.AsyncClient, said: dict[str, Any], **headers: str) -> httpx.Response:
    return await client.post("/v1/chat/completions", json=said, headers=headers)


def texts(answer: httpx.Response) -> tuple[str, bool]:
    """The content of a stream, and whether it ended well."""
    events = [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]
    chunks = [orjson.loads(event) for event in events if event != "[DONE]"]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices", [])]
    return "".join(delta.get("content") or "" for delta in deltas), events[-1] == "[DONE]"


async def test_every_kind_answers(setting: Setting) -> None:
    async with setting.running() as client:
        for kind in KINDS:
            setting.servers[kind].replies += [
                whole(FORMATS[kind], Said(["hé", "llo"])),
                streamed(FORMATS[kind], Said(["hé", "llo"])),
            ]
            answer = (await post(client, body(kind))).json()
            assert answer["choices"][0]["message"]["content"] == "héllo"
            assert answer["usage"]["prompt_tokens"] == 5
            assert answer["model"] == f"{kind}/m"
            assert texts(await post(client, body(kind, stream=True))) == ("héllo", True)


@pytest.mark.parametrize("stream", [False, True])
async def test_refusals_have_their_status_in_json_and_before_a_stream(setting: Setting, stream: bool) -> None:
    async with setting.running() as client:
        for kind in KINDS:
            for status, expected in ((400, 400), (401, 502), (404, 404), (429, 429), (500, 502), (529, 503)):
                setting.servers[kind].replies += [refusal(FORMATS[kind], status, "no", retry_after="7")] * 4
                model = f"{kind}/m{status}"  # its own, as a model that asked for rest is left alone
                answer = await post(client, {**body(kind, stream=stream), "model": model})
                setting.servers[kind].replies.clear()
                assert (kind, answer.status_code) == (kind, expected)
                assert answer.headers["content-type"].startswith("application/json")
                assert answer.json()["error"]["code"]


async def test_a_stream_that_breaks_ends_with_one_error(setting: Setting) -> None:
    async with setting.running() as client:
        for kind in KINDS:
            form = FORMATS[kind]
            begun = b"".join(form.events(Said(list("abcdef")))[:5])
            for broken in (
                Reply([begun], headers=SSE, end="chunked"),
                Reply([begun + form.error_inside("x")], headers=SSE),
            ):
                setting.servers[kind].replies.append(broken)
                answer = await post(client, body(kind, stream=True))
                assert answer.status_code == 200
                assert answer.text.count('"error"') == 1
                assert "[DONE]" not in answer.text
                assert '"finish_reason":"' not in answer.text


async def test_a_changed_file_drops_nothing(setting: Setting) -> None:
    """Streams that began before the change go on to their end; new requests see the new file."""
    async with setting.running() as client:
        slow = streamed(FORMATS["openai"], Said(list("abcdefgh")), 40)
        setting.servers["openai"].replies.append(
            Reply(slow.pieces, headers=slow.headers, end="chunked", pause_s=0.01)
        )
        under_way = asyncio.ensure_future(post(client, body("openai", stream=True)))
        await setting.servers["openai"].until_taken()
        setting.write(
            openai='headers = { "x-new" = "1" }', extra='[aliases.both]\ncandidates = ["openai/m"]\n'
        )
        answer = await until_known(client, setting, "both")
        assert answer.json()["choices"][0]["message"]["content"] == "new"
        assert texts(await under_way) == ("abcdefgh", True)
        assert "x-new" in setting.servers["openai"].asked[-1].headers
        setting.path.write_text("[providers")
        async with asyncio.timeout(PATIENCE_S):
            while "not in force" not in (await client.get("/readyz")).text:  # noqa: ASYNC110 - another's file
                await asyncio.sleep(0.02)
        setting.servers["openai"].replies.append(whole(FORMATS["openai"], Said(["still"])))
        assert (await post(client, body("openai"))).status_code == 200


async def until_known(client: httpx.AsyncClient, setting: Setting, alias: str) -> httpx.Response:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            setting.servers["openai"].replies.append(whole(FORMATS["openai"], Said(["new"])))
            setting.servers["ollama"].replies.append(refusal(FORMATS["ollama"], 404, "model not found"))
            answer = await post(client, {**body("openai"), "model": alias})
            if answer.status_code == 200:
                return answer
            setting.servers["openai"].replies.clear()
            await asyncio.sleep(0.02)


def test_a_configuration_that_cannot_be_used_ends_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "chatd.toml"
    path.write_text('[providers.x]\ntype = "telegraph"\n[aliases.a]\ncandidates = ["gone/m"]\n')
    with pytest.raises(SystemExit) as caught:
        create_app(Settings(data=tmp_path, config=path))
    assert "line 1: providers.x" in str(caught.value)
    assert "line 4: aliases.a.candidates.0" in str(caught.value)
