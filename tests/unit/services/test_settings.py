"""Settings: read once, frozen, with forgiving addresses and unforgiving limits."""

import pytest
from pydantic import ValidationError

from embedd.settings import Settings as EmbeddSettings
from gateway.settings import Settings as GatewaySettings


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:11434"),
        ("0.0.0.0:11500", "http://127.0.0.1:11500"),
        ("http://ollama", "http://ollama:11434"),
        ("https://ollama.example/base/", "https://ollama.example:443/base"),
        ("[::1]:9", "http://[::1]:9"),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(
    monkeypatch: pytest.MonkeyPatch, given: str, url: str
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", given)
    assert EmbeddSettings().ollama_url == url


def test_replicas_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_EMBEDD_URLS", "http://a:1/, b:2 ,")
    assert GatewaySettings().embedd_urls == ("http://a:1", "http://b:2")


@pytest.mark.parametrize("value", ["", "ftp://a", "http://"])
def test_a_wrong_address_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("GATEWAY_EMBEDD_URLS", value or ",")
    with pytest.raises(ValidationError):
        GatewaySettings()


@pytest.mark.parametrize("url", ["redis://h:6379/0", "rediss://:secret@h", "unix:///run/valkey.sock"])
def test_a_shared_store_is_named_by_a_url_of_redis(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("EMBEDD_L2_URL", url)
    monkeypatch.setenv("GATEWAY_LIMITS_URL", url)
    for found in (EmbeddSettings().l2_url, GatewaySettings().limits_url):
        assert found is not None
        assert found.get_secret_value() == url


@pytest.mark.parametrize("settings", [EmbeddSettings, GatewaySettings])
def test_another_url_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch, settings: type[EmbeddSettings | GatewaySettings]
) -> None:
    for variable in ("EMBEDD_L2_URL", "GATEWAY_LIMITS_URL"):
        monkeypatch.setenv(variable, "http://:secret@h:6379")
    with pytest.raises(ValidationError, match="redis://127") as refused:
        settings()
    assert "secret" not in str(refused.value)


def test_settings_are_frozen() -> None:
    settings = GatewaySettings()
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]


def test_a_field_knows_its_variable() -> None:
    assert EmbeddSettings.variable("cache_bytes_max") == "EMBEDD_CACHE_BYTES_MAX"
    assert EmbeddSettings.variable("ollama_url") == "OLLAMA_HOST"
    assert EmbeddSettings.variable("data") == "STILLHOUSE_DATA"
