"""`chatd.toml`: all its faults at once, each with its line; and exchanged without dropping anything."""

import asyncio
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chatd.backends import FakeProvider, Provider
from chatd.engine.config import (
    AliasSpec,
    AnthropicSpec,
    Breaking,
    BudgetsSpec,
    CacheSpec,
    Config,
    ConfigRefused,
    DispatchSpec,
    Keeper,
    Keys,
    OllamaSpec,
    OpenAISpec,
    Price,
    ProviderSpec,
    cost_usd,
    parse,
)
from chatd.engine.config.lines import lines_of
from chatd.engine.config.secrets import Secrets
from services.audit import AuditLog
from services.errors import Unavailable

pytestmark = pytest.mark.anyio

VARIABLES = {"OPENAI_API_KEY": "sk-1", "SECOND": "sk-2"}

GOOD = """
[providers.ollama]
type = "ollama"

[providers.openai]
type = "openai"
key_env = ["OPENAI_API_KEY", "SECOND"]
headers = { "X-Org" = "secret-org" }
rpm = 60
timeouts = { first_token_s = 20, idle_s = 5 }

[providers.openai.models."gpt-5"]
concurrency_max = 4

[providers.claude]
type = "anthropic"
key_file = "claude.key"
on_disconnect = "drain"

[aliases.smart]
candidates = ["claude/opus", { model = "openai/gpt-5", weight = 3 }]
strategy = "weighted"
fallbacks_context = ["openai/gpt-5-long"]
hedge_first_token_ms = 800

[prices."openai/gpt-5"]
"/prompt_tokens" = 2.5
"/prompt_tokens_details/cached_tokens" = { usd_per_million = -1.25, optional = true }
"/completion_tokens" = 10

[prices."ollama/*"]
"/eval_count" = 0

[budgets]
usd_a_day = 20
keys = { ci = 1.5 }

[cache]
enabled = true
"""


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    (tmp_path / "claude.key").write_text("sk-ant-1\n")
    return Secrets(VARIABLES.get, tmp_path)


def faults(text: str, secrets: Secrets) -> list[str]:
    with pytest.raises(ConfigRefused) as caught:
        parse(text, secrets)
    return [f"{fault.line} {fault.path}" for fault in caught.value.faults]


def test_a_whole_configuration(secrets: Secrets) -> None:
    config = parse(GOOD, secrets)
    openai = config.providers["openai"]
    assert (openai.rpm, openai.timeouts.first_token_s, openai.timeouts.total_s) == (60, 20, 600)
    assert openai.models["gpt-5"].concurrency_max == 4
    assert secrets.of(openai) == ("sk-1", "sk-2")
    assert secrets.of(config.providers["claude"]) == ("sk-ant-1",)
    smart = config.aliases["smart"]
    assert [(one.model, one.weight) for one in smart.candidates] == [
        ("claude/opus", 1.0),
        ("openai/gpt-5", 3.0),
    ]
    assert config.price_of("ollama", "anything") == {"/eval_count": Price(usd_per_million=0)}
    assert config.price_of("openai", "other") is None
    assert config.budgets.keys == {"ci": 1.5}


def test_all_faults_come_at_once_each_with_its_line(secrets: Secrets) -> None:
    text = """[providers.openai]
type = "openai"
key_env = ["OPENAI_API_KEY", "ABSENT"]
rpm = 0
colour = "red"

[providers.x]
type = "telegraph"

[providers."y"]
base_url = "http://x"

[providers."Ümlaut"]
type = "ollama"

[aliases.fast]
candidates = [
    "openai/a",
    # a comment
    "nowhere/b",
    { model = "gone/c", weight = -1 },
]
strategy = "best"

[aliases.openai]
candidates = []

[prices."mars/x"]
"/n" = "dear"

[budgets]
usd_a_day = -1

[surprise]
a = 1
"""
    assert faults(text, secrets) == [
        "3 providers.openai.key_env.1",
        "4 providers.openai.rpm",
        "5 providers.openai.colour",
        "7 providers.x",
        "10 providers.y",
        '13 providers."Ümlaut"',
        "20 aliases.fast.candidates.1",
        "21 aliases.fast.candidates.2.model",
        "21 aliases.fast.candidates.2.weight",
        "23 aliases.fast.strategy",
        "25 aliases.openai",
        "26 aliases.openai.candidates",
        '28 prices."mars/x"',
        '29 prices."mars/x"."/n"',
        "32 budgets.usd_a_day",
        "34 surprise",
    ]


def test_faults_never_repeat_values(secrets: Secrets) -> None:
    text = '[providers.openai]\ntype = "openai"\nheaders = { "a b" = "topsecret" }\nkey_env = "topsecret x"\n'
    with pytest.raises(ConfigRefused) as caught:
        parse(text, secrets)
    assert "topsecret" not in str(caught.value)
    assert str(caught.value).startswith("chatd.toml: line 3: ")


@pytest.mark.parametrize(
    ("text", "line"), [("a = 1\nb = = 2\n", 2), ("a = [1,\n", 2), ("[x]\na = 1\n[x]\nb = 1\n", 3)]
)
def test_what_is_not_toml_has_a_line_too(text: str, line: int, secrets: Secrets) -> None:
    assert faults(text, secrets) == [f"{line} "]


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ('key_file = "absent.key"', "3 providers.p.key_file"),
        ('key_env = "EMPTY"', "3 providers.p.key_env"),
        ('key_env = "TWO_LINES"', "3 providers.p.key_env"),
        ('key_env = "OPENAI_API_KEY"\nkey_file = "claude.key"', "4 providers.p.key_file"),
        ('lacks = ["sead"]', "3 providers.p.lacks.0"),
        ('base_url = "ftp://x"', "3 providers.p.base_url"),
        ("timeouts = { connect_s = 0 }", "3 providers.p.timeouts.connect_s"),
        ('[dispatch]\ndefault_provider = "q"', "4 dispatch.default_provider"),
    ],
)
def test_single_faults(table: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "claude.key").write_text("k")
    variables = {**VARIABLES, "EMPTY": " ", "TWO_LINES": "a\nb"}
    secrets = Secrets(variables.get, tmp_path)
    assert faults(f'[providers.p]\ntype = "openai"\n{table}\n', secrets) == [fault]


# --- lines ------------------------------------------------------------------------------------------

TRICKY = '''# a comment with [brackets] and "quotes"
a.b."c d" = """text
[not.a.table]
x = 1 \\""" ""\\"""" # six

'lit\\'.k = '' # empty
[ t . "u.v" ] # spaced
n = [ [1, 2], # one
  [ "]", '}', {k = [3]} ], ] # trailing
m = {x = 1, "y" = {z = "#"}}
d = 1979-05-27T07:32:00Z
f = -1_000.5e3
s = \'\'\'
]]\'\'\'
[[arr]]
k = 1
[[arr]]
k = true
[arr.sub]
q = 2
'''


def every_path(value: Any, path: tuple[int | str, ...] = ()) -> Iterator[tuple[int | str, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from every_path(inner, (*path, key))


def test_every_key_has_its_line() -> None:
    lines = lines_of(TRICKY)
    expected = {
        ("a", "b", "c d"): 2,
        ("lit\\", "k"): 6,
        ("t", "u.v", "n"): 8,
        ("t", "u.v", "n", 1, 2, "k", 0): 9,
        ("t", "u.v", "m", "y", "z"): 10,
        ("t", "u.v", "d"): 11,
        ("t", "u.v", "s"): 13,
        ("arr", 0, "k"): 16,
        ("arr", 1, "k"): 18,
    }
    assert {path: lines.get(path) for path in expected} == expected
    data = tomllib.loads(TRICKY)
    del data["arr"][1]["sub"]  # filed below the array's name, as it is written
    assert [path for path in every_path(data) if path not in lines] == []


def test_the_good_one_has_a_line_for_everything() -> None:
    lines = lines_of(GOOD)
    written = GOOD.splitlines()
    for path in every_path(tomllib.loads(GOOD)):
        if len(path) > 1 and isinstance(path[-1], str):
            assert path[-1] in written[lines[path] - 1]


# --- prices -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        ({"prompt_tokens": 1000, "completion_tokens": 100}, 0.0035),
        (
            {
                "prompt_tokens": 1000,
                "completion_tokens": 100,
                "prompt_tokens_details": {"cached_tokens": 400},
            },
            0.003,
        ),
        ({"prompt_tokens": 1000}, None),
        ({"prompt_tokens": "many", "completion_tokens": 1}, None),
        ({"prompt_tokens": True, "completion_tokens": 1}, None),
        (None, None),
    ],
)
def test_costs(usage: dict[str, Any] | None, cost: float | None, secrets: Secrets) -> None:
    prices = parse(GOOD, secrets).price_of("openai", "gpt-5")
    assert cost_usd(prices, usage) == (pytest.approx(cost) if cost is not None else None)
    assert cost_usd(None, usage) is None


# --- exchanging ---------------------------------------------------------------------------------------


def fakes(name: str, _: ProviderSpec, __: Keys) -> Provider:
    return FakeProvider(name, [])


def write(path: Path, text: str) -> None:
    """As an editor does, so that the file is another one even within a tick of the clock."""
    aside = path.with_suffix(".new")
    aside.write_text(text)
    os.replace(aside, path)  # noqa: PTH105 - what is meant


async def opened(tmp_path: Path, text: str = GOOD) -> tuple[Keeper, Path]:
    (tmp_path / "claude.key").write_text("sk-ant-1")
    path = tmp_path / "chatd.toml"
    path.write_text(text)
    keeper = Keeper(fakes, AuditLog(tmp_path))
    await keeper.open(path, VARIABLES.get)
    return keeper, path


async def test_a_changed_file_is_taken_up_and_what_did_not_change_stays(tmp_path: Path) -> None:
    keeper, path = await opened(tmp_path)
    before = keeper.current
    await keeper.refresh()
    assert keeper.current is before
    write(path, GOOD.replace("rpm = 60", "rpm = 61"))
    await keeper.refresh()
    after = keeper.current
    assert after.hash != before.hash
    assert after.providers["ollama"] is before.providers["ollama"]
    assert after.providers["openai"] is not before.providers["openai"]
    retired = before.providers["openai"]
    assert isinstance(retired, FakeProvider)
    assert retired.retired
    assert before.config.providers["openai"].rpm == 60
    await keeper.check()


async def test_the_audit_log_has_every_configuration_that_was_in_force(tmp_path: Path) -> None:
    keeper, path = await opened(tmp_path)
    await keeper.refresh()
    (tmp_path / "audit").rename(tmp_path / "away")
    (tmp_path / "audit").write_text("not a folder")
    write(path, GOOD.replace("rpm = 60", "rpm = 61"))
    await keeper.refresh()
    (tmp_path / "audit").unlink()
    (tmp_path / "away").rename(tmp_path / "audit")
    await keeper.refresh()  # what could not be told is told later
    first, second = AuditLog(tmp_path).entries()
    assert {entry["change"] for entry in (first, second)} == {"configuration_in_force"}
    assert second["detail"]["config_hash"] == keeper.current.hash != first["detail"]["config_hash"]
    assert "openai" in second["detail"]["providers"]
    assert "sk-ant-1" not in "".join(log.read_text() for log in (tmp_path / "audit").glob("*.jsonl"))


async def test_a_new_key_in_its_file_is_taken_up(tmp_path: Path) -> None:
    keeper, _ = await opened(tmp_path)
    before = keeper.current
    write(tmp_path / "claude.key", "sk-ant-2")
    await keeper.refresh()
    assert keeper.current.providers["claude"] is not before.providers["claude"]
    assert keeper.current.providers["openai"] is before.providers["openai"]
    assert keeper.current.hash == before.hash


@pytest.mark.parametrize("broken", ["[providers", '[providers.x]\ntype = "telegraph"', None])
async def test_a_broken_file_leaves_the_last_good_one_in_force(tmp_path: Path, broken: str | None) -> None:
    keeper, path = await opened(tmp_path)
    before = keeper.current
    if broken is None:
        path.unlink()
    else:
        write(path, broken)
    await keeper.refresh()
    await keeper.refresh()
    assert keeper.current is before
    with pytest.raises(Unavailable, match="not in force"):
        await keeper.check()
    write(path, GOOD)
    await keeper.refresh()
    await keeper.check()
    assert keeper.current.providers["openai"] is before.providers["openai"]


async def test_a_broken_file_at_the_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigRefused, match="line 1"):
        await opened(tmp_path, "[providers")


async def test_the_hash_is_of_what_shapes_answers_and_holds_no_secret(tmp_path: Path) -> None:
    keeper, path = await opened(tmp_path)
    before = keeper.current
    write(path, GOOD.replace("secret-org", "other-org") + "\n# a comment\n")
    await keeper.refresh()
    assert keeper.current.hash == before.hash
    assert "secret-org" not in repr(before.config)
    held = Keeper(fakes, AuditLog(tmp_path))
    hashes = []
    for url in ("http://u:p@x:1", "http://u:q@x:1", "http://u:p@y:1"):
        held.hold(Config(providers={"ollama": OllamaSpec(type="ollama", base_url=url)}), {})
        hashes.append(held.current.hash)
    assert hashes[0] == hashes[1] != hashes[2]


async def test_calls_under_way_keep_what_they_began_with(tmp_path: Path) -> None:
    """Many readers, while the file changes: each sees one whole configuration."""
    keeper, path = await opened(tmp_path)
    seen: set[tuple[int | None, str]] = set()

    async def reader() -> None:
        for _ in range(50):
            snapshot = keeper.current
            await asyncio.sleep(0)
            assert set(snapshot.providers) == set(snapshot.config.providers)
            seen.add((snapshot.config.providers["openai"].rpm, snapshot.hash))

    async def writer() -> None:
        for rpm in range(61, 66):
            write(path, GOOD.replace("rpm = 60", f"rpm = {rpm}"))
            await keeper.refresh()

    await asyncio.gather(writer(), *(reader() for _ in range(10)))
    assert len({rpm for rpm, _ in seen}) == len({hash_ for _, hash_ in seen})


# --- the page about it ---------------------------------------------------------------------------------


def test_the_example_of_the_page_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "providers.md").read_text()
    example = page.split("```toml\n")[1].split("```")[0]
    (tmp_path / "deepseek.key").write_text("k")
    config = parse(example, Secrets(lambda _: "key", tmp_path))
    assert len(config.providers) == 5
    tables = (
        OpenAISpec,
        AnthropicSpec,
        OllamaSpec,
        AliasSpec,
        Breaking,
        DispatchSpec,
        BudgetsSpec,
        CacheSpec,
    )
    for key in (field for table in tables for field in table.model_fields):
        assert f"`{key}`" in page or f"`{key}." in page or f"\n{key} = " in page, key
