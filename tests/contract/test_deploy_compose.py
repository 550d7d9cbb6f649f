"""deploy/compose.yaml, against the code: what it names exists, and what it runs is held in."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest
import yaml

from gateway.backends.resolve import is_name
from services.settings import DaemonSettings
from stillhouse.settings import CliSettings
from stillhouse.supervisor import DaemonSpec, daemon_specs, read_compose, topology
from tests.generate import DAEMONS, ROOT, settings_type

FOLDER = ROOT / "deploy"
TEXT = (FOLDER / "compose.yaml").read_text()
FILE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
PYTHONS_OWN = frozenset({"TMPDIR"})
PROFILES = ("tools", "ollama", "scale", "observability")
BY_TAG_ALONE = {"ollama", "valkey", "limits"}
"""Whose digest nobody could be asked for; docs/deploy.md says how to add it."""


def entry() -> ModuleType:
    spec = importlib.util.spec_from_file_location("entry", FOLDER / "image" / "entry.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def variables_of(kind: type[DaemonSettings] | type[CliSettings]) -> set[str]:
    prefix = kind.model_config.get("env_prefix", "")
    return {
        str(field.validation_alias or f"{prefix}{name}".upper()) for name, field in kind.model_fields.items()
    }


def peers_of(name: str) -> set[str]:
    """The variables that tell a daemon where others are, each of which means this very machine unless set."""
    fields = settings_type(name).model_fields
    asked = {
        field: str(info.default)
        for field, info in fields.items()
        if re.search(r"https?://127\.0\.0\.1:", str(info.default))
    }
    return {settings_type(name).variable(field) for field in asked}


def environment(name: str) -> dict[str, str]:
    found: dict[str, str] = SERVICES[name].get("environment", {})
    return found


def ours() -> list[str]:
    return [name for name, service in SERVICES.items() if "build" in service]


def theirs() -> list[str]:
    return [name for name, service in SERVICES.items() if "build" not in service]


def filled(text: str) -> str:
    """With the defaults of its variables."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def test_it_runs_every_daemon() -> None:
    assert set(ours()) == {*DAEMONS, "cli"}


@pytest.mark.parametrize("name", [*DAEMONS, "cli"])
def test_every_setting_exists(name: str) -> None:
    known = variables_of(CliSettings if name == "cli" else settings_type(name)) | PYTHONS_OWN
    assert {variable.removesuffix("_FILE") for variable in environment(name)} <= known


@pytest.mark.parametrize("name", DAEMONS)
def test_every_daemon_is_told_where_its_peers_are(name: str) -> None:
    """In a container nobody else is at 127.0.0.1."""
    assert peers_of(name) <= set(environment(name))


def test_peers_are_found_in_the_settings() -> None:
    assert peers_of("embedd") == {"OLLAMA_HOST"}
    assert {"GATEWAY_CHATD_URLS", "GATEWAY_EMBEDD_URLS"} < peers_of("gateway")


@pytest.mark.parametrize("name", DAEMONS)
def test_the_image_knows_the_port_of_every_daemon(name: str) -> None:
    assert entry().PORTS[name] == settings_type(name).model_fields["port"].default


@pytest.mark.parametrize("name", [*DAEMONS, "cli"])
def test_images_are_built_from_what_there_is(name: str) -> None:
    build = SERVICES[name]["build"]
    arguments = {key: filled(value) for key, value in build["args"].items()}
    context = (FOLDER / build["context"]).resolve()
    assert context == ROOT
    assert (context / "Dockerfile").is_file()
    assert arguments["DAEMON"] == name
    assert (context / "requirements" / f"{arguments.get('EXTRA', name)}.txt").is_file()
    assert (context / arguments.get("MODULE", name) / "__main__.py").is_file()
    declared = set(re.findall(r"^ARG (\w+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert set(arguments) <= declared


@pytest.mark.parametrize("name", theirs())
def test_images_of_others_are_pinned(name: str) -> None:
    tag, _, digest = SERVICES[name]["image"].partition("@")
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", tag)
    assert (re.fullmatch(r"sha256:[0-9a-f]{64}", digest) is None) == (name in BY_TAG_ALONE)


def test_our_images_have_our_version() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert {SERVICES[name]["image"] for name in ours()} == {f"stillhouse-{n}:{version[1]}" for n in ours()}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_held_in(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert service["restart"] == ("no" if name == "cli" else "unless-stopped")
    assert service["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}}
    assert any(mount.startswith("/tmp:size=") for mount in service["tmpfs"])


@pytest.mark.parametrize("name", DAEMONS)
def test_a_daemon_may_finish_what_it_has(name: str) -> None:
    """Docker would kill it after ten seconds."""
    grace = re.fullmatch(r"(\d+)s", SERVICES[name]["stop_grace_period"])
    assert grace is not None
    assert float(grace[1]) > settings_type(name)().drain_timeout_s
    assert SERVICES[name]["init"] is True


def test_work_is_shared_among_the_processors_that_there_may_be() -> None:
    """A process for each of a large host's would end in the limits of memory and of processes."""
    limits = SERVICES["distill"]["deploy"]["resources"]["limits"]
    assert environment("distill")["DISTILL_PROCESSES"] == limits["cpus"]


@pytest.mark.parametrize("name", DAEMONS)
def test_no_daemon_has_a_health_check_but_its_images(name: str) -> None:
    assert "healthcheck" not in SERVICES[name]


def test_only_doors_are_published_and_only_on_loopback_unless_asked() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"gateway", "prometheus", "grafana"}
    assert all(filled(port).startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert FILE["networks"]["internal"] == {"internal": True}
    assert {name for name in SERVICES if "edge" in SERVICES[name]["networks"]} == set(published)
    # What is published is reached; it reaches nobody outside itself.
    no_way_out = {"com.docker.network.bridge.enable_ip_masquerade": "false"}
    assert FILE["networks"]["edge"] == {"driver_opts": no_way_out}
    assert {name for name in SERVICES if "egress" in SERVICES[name]["networks"]} == {
        "embedd",
        "chatd",
        "ollama",
    }
    assert all("internal" in service["networks"] for service in SERVICES.values())


def waits(name: str) -> Iterator[str]:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        # Who belongs to a profile is waited for where that is on, as Compose reads `required: false`.
        optional = "profiles" in SERVICES[other] and SERVICES[other]["profiles"] != SERVICES[name].get(
            "profiles"
        )
        assert how == {"condition": "service_healthy", **({"required": False} if optional else {})}
        yield other


def test_the_start_is_ordered_by_health() -> None:
    seen: list[str] = []
    left = dict.fromkeys(SERVICES)
    while left:
        free = [name for name in left if all(other in seen for other in waits(name))]
        assert free, f"{list(left)} wait for one another"
        seen += free
        for name in free:
            del left[name]
    assert all("healthcheck" in SERVICES[name] for name in theirs())


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source, target, *mode = filled(volume).split(":")
        assert target.startswith("/")
        if source == "./roster":  # the operator's
            assert mode == ["ro"]
        elif source.startswith("."):
            assert mode == ["ro"]
            assert (FOLDER / source).exists(), source
        else:
            assert source in FILE["volumes"]
    for secret in SERVICES[name].get("secrets", []):
        assert secret in FILE["secrets"]


@pytest.mark.parametrize("name", [name for name in DAEMONS if name != "modeld"])
def test_every_daemon_has_the_secret_that_they_share(name: str) -> None:
    assert environment(name)["STILLHOUSE_INTERNAL_TOKEN_FILE"] == "/run/secrets/internal_token"
    assert "internal_token" in SERVICES[name]["secrets"]


def test_no_volume_and_no_secret_is_left_over() -> None:
    mounted = {v.split(":")[0] for service in SERVICES.values() for v in service.get("volumes", [])}
    assert set(FILE["volumes"]) <= mounted
    assert set(FILE["secrets"]) == {s for service in SERVICES.values() for s in service.get("secrets", [])}


def test_profiles_are_those_that_are_told_of() -> None:
    assert {profile for service in SERVICES.values() for profile in service.get("profiles", [])} == set(
        PROFILES
    )
    page = (ROOT / "docs" / "deploy.md").read_text()
    assert all(f"`{profile}`" in page for profile in PROFILES)


def test_every_variable_is_explained_at_the_top() -> None:
    head = TEXT[: TEXT.index("\nname:")]
    used = set(re.findall(r"\$\{(\w+)", TEXT)) - {"COMPOSE_PROJECT_NAME"}  # which Compose sets itself
    assert {variable for variable in used if variable not in head} == set()


def test_what_a_read_only_root_would_end_is_elsewhere() -> None:
    """Qdrant writes a file beside its program, and ends where it cannot."""
    (folder,) = [mount.split(":")[0] for mount in SERVICES["qdrant"]["tmpfs"] if mount.startswith("/tmp:")]
    assert environment("qdrant")["QDRANT_INIT_FILE_PATH"].startswith(f"{folder}/")


def test_replicas_are_found_by_name() -> None:
    for variable, url in environment("gateway").items():
        if variable.endswith("_URLS"):
            assert is_name(url), url
    for name in ("embedd", "chatd", "validators"):  # what may be scaled is neither named nor published
        assert "container_name" not in SERVICES[name]
        assert "ports" not in SERVICES[name]


@pytest.mark.parametrize("spec", daemon_specs(CliSettings()), ids=lambda spec: spec.name)
def test_what_there_is_one_of_cannot_be_scaled(spec: DaemonSpec) -> None:
    """Compose refuses a second container of one name, or of one port. Of modeld there may be several."""
    service = SERVICES[spec.name]
    if spec.name != "modeld":
        assert (spec.single is not None) == ("container_name" in service or "ports" in service)


def overrides() -> list[Any]:
    """What the pages tell an operator to add."""
    pages = [(ROOT / "docs" / name).read_text() for name in ("deploy.md", "operations.md")]
    blocks = [dedent(block) for page in pages for block in re.findall(r"(?:^ {4}.*\n)+", page, re.MULTILINE)]
    return [yaml.safe_load(block) for block in blocks if re.search("^services:", block, re.MULTILINE)]


def laid_over(old: Any, new: Any) -> Any:
    """As Compose lays one file over another."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: laid_over(old.get(key), value) for key, value in new.items()}}
    return [*old, *new] if isinstance(old, list) and isinstance(new, list) else new


@pytest.mark.parametrize("override", overrides())
def test_what_the_pages_add_fits(override: Any, tmp_path: Path) -> None:
    for secret in (*FILE["secrets"], *override["secrets"]):
        (tmp_path / secret).write_text("0123456789abcdef")
    for secret in override["secrets"].values():
        (tmp_path / secret["file"]).parent.mkdir(exist_ok=True)
        (tmp_path / secret["file"]).write_text("0123456789abcdef")
    for name, service in override["services"].items():
        known = variables_of(settings_type(name))
        assert {variable.removesuffix("_FILE") for variable in service["environment"]} <= known
    file = tmp_path / "compose.yaml"
    file.write_text(yaml.safe_dump(laid_over(FILE, override)))
    read = read_compose(file, {"STILLHOUSE_SECRETS": str(tmp_path)})
    assert topology(read, tmp_path, daemon_specs(CliSettings()), data=tmp_path).replicas


def test_the_pages_have_what_is_tested() -> None:
    assert {name for override in overrides() for name in override["services"]} == {"chatd", "gateway"}


@pytest.mark.parametrize("profiles", [(), PROFILES])
def test_it_runs_as_processes_as_well(
    profiles: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which checks every port of a URL and every path as it maps them."""
    for secret in FILE["secrets"]:
        (tmp_path / secret).write_text("0123456789abcdef")
    variables = {"STILLHOUSE_SECRETS": str(tmp_path)}
    if profiles:
        variables |= {
            "STILLHOUSE_OLLAMA_URL": "http://ollama:11434",
            "STILLHOUSE_MODELD": "0",
            "STILLHOUSE_VALKEY_URL": "redis://valkey:6379/0",
            "STILLHOUSE_LIMITS_URL": "redis://limits:6379/0",
            "STILLHOUSE_QDRANT_URL": "http://qdrant:6333",
        }
    found = topology(
        read_compose(FOLDER / "compose.yaml", variables, profiles=profiles),
        FOLDER,
        daemon_specs(CliSettings()),
        data=tmp_path,
        scale={"embedd": 3},
    )
    labels = [replica.label for replica in found.replicas]
    others = DAEMONS[2:-1] if profiles else DAEMONS[2:]
    assert labels == ["gateway", "embedd", "embedd.2", "embedd.3", *others]
    for replica in found.replicas:
        for name, value in replica.spec.variables.items():
            monkeypatch.setenv(name, value)
        assert settings_type(replica.spec.name)().data.is_relative_to(tmp_path)
        for name in replica.spec.variables:
            monkeypatch.delenv(name)
    assert bool(found.notes) == bool(profiles)
