"""`NAME_FILE` stands for the content of a file."""

from pathlib import Path

import pytest
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from services.settings import DaemonSettings


class Settings(DaemonSettings):
    model_config = SettingsConfigDict(env_prefix="TASTER_")

    port: int = 1
    api_key: SecretStr | None = None
    tags: dict[str, int] = Field({}, description="JSON.")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    return tmp_path / "secret"


def reason(error: ValidationError) -> tuple[str, str]:
    fault = error.errors()[0]
    return str(fault["loc"][0]), fault["msg"]


@pytest.mark.parametrize("text", ["s3cret", "s3cret\n", "s3cret\r\n"])
def test_a_value_may_stand_in_a_file(secret: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    secret.write_bytes(text.encode())
    monkeypatch.setenv("TASTER_API_KEY_FILE", str(secret))
    key = Settings().api_key
    assert key is not None
    assert key.get_secret_value() == "s3cret"


def test_variables_without_a_prefix_may_as_well(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret.write_text("http://127.0.0.1:4318\n")
    monkeypatch.setenv("STILLHOUSE_OTLP_ENDPOINT_FILE", str(secret))
    assert Settings().otlp_endpoint == "http://127.0.0.1:4318"


def test_json_stands_in_a_file_as_it_would_in_the_variable(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret.write_text('{"a": 1}')
    monkeypatch.setenv("TASTER_TAGS_FILE", str(secret))
    assert Settings().tags == {"a": 1}


def test_a_value_given_in_code_wins(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret.write_text("5")
    monkeypatch.setenv("TASTER_PORT_FILE", str(secret))
    assert Settings(port=7).port == 7


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"\xff\xfe", "is not UTF-8"), (b"x" * 70_000, "larger than")],
)
def test_a_file_without_a_usable_value_is_refused(
    secret: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, said: str
) -> None:
    secret.write_bytes(content)
    monkeypatch.setenv("TASTER_API_KEY_FILE", str(secret))
    with pytest.raises(ValidationError) as refused:
        Settings()
    variable, message = reason(refused.value)
    assert variable == "TASTER_API_KEY_FILE"
    assert said in message


def test_a_missing_file_is_refused(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASTER_API_KEY_FILE", str(secret))
    with pytest.raises(ValidationError, match="cannot be read"):
        Settings()


def test_both_forms_at_once_are_refused(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret.write_text("from the file")
    monkeypatch.setenv("TASTER_API_KEY", "from the variable")
    monkeypatch.setenv("TASTER_API_KEY_FILE", str(secret))
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert "set one of the two" in reason(refused.value)[1]
    assert "from the" not in str(refused.value)
