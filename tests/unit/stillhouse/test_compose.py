"""A Compose file as processes: what is filled in, what is mapped, what is refused."""

from pathlib import Path

import pytest

from services.errors import InvalidRequest
from stillhouse.settings import CliSettings
from stillhouse.supervisor import daemon_specs, read_compose, topology
from stillhouse.supervisor.topology import Topology

FILE = """
services:
  gateway:
    build: {context: ., args: {DAEMON: gateway}}
    environment: {GATEWAY_EMBEDD_URLS: "http://embedd:3101", GATEWAY_CHATD_URLS: "http://chatd:3103"}
    ports: ["127.0.0.1:${GATEWAY_PORT:-3100}:3100"]
    volumes: ["keys:/data"]
  embedd:
    build: {args: [DAEMON=embedd]}
    environment:
      - EMBEDD_L2_URL=${VALKEY:-}
      - EMBEDD_OPENAI_API_KEY_FILE=/run/secrets/openai
      - OLLAMA_HOST=http://ollama:11434/base
      - EMBEDD_OPENAI_URL=https://api.example.com/v1
    secrets: [openai]
    volumes: ["warm:/data"]
    deploy: {replicas: 2}
  chatd:
    build: {args: {DAEMON: chatd}}
    environment:
      CHATD_VECTORD_URL: http://embedd:3101
      CHATD_CONFIG: /config/chatd.toml
      CHATD_PEER_TIMEOUT_S: 5
    volumes: ["./config:/config:ro", "spool:/data"]
  ollama:
    image: ollama/ollama:1
    ports: ["12000:11434"]
  valkey:
    image: valkey/valkey:1
    profiles: [scale]
secrets:
  openai: {file: ./openai.txt}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "openai.txt").write_text("key")
    path = tmp_path / "compose.yaml"
    path.write_text(FILE)
    return path


def plan(
    file: Path,
    *names: str,
    environment: dict[str, str] | None = None,
    profiles: tuple[str, ...] = (),
    scale: dict[str, int] | None = None,
) -> Topology:
    return topology(
        read_compose(file, environment or {}, profiles=profiles),
        file.parent,
        daemon_specs(CliSettings(embedd_port=4101)),
        data=file.parent / "data",
        names=names,
        scale=scale,
    )


def variables(found: Topology, name: str) -> dict[str, str]:
    return dict(next(each.spec.variables for each in found.replicas if each.spec.name == name))


def refusal(file: Path, old: str, new: str, **more: str) -> str:
    file.write_text(FILE.replace(old, new))
    with pytest.raises(InvalidRequest) as refused:
        plan(file, environment=more)
    return refused.value.message


def test_services_that_build_daemons_become_processes(file: Path) -> None:
    assert [each.label for each in plan(file).replicas] == ["gateway", "embedd", "embedd.2", "chatd"]


def test_a_scale_that_is_asked_for_goes_before_the_files(file: Path) -> None:
    replicas = plan(file, scale={"embedd": 3}).replicas
    assert [each.port for each in replicas if each.spec.name == "embedd"] == [4101, 4201, 4301]


@pytest.mark.parametrize("where", ["file", "argument"])
def test_none_of_a_daemon_runs_where_it_is_scaled_to_nothing(file: Path, where: str) -> None:
    if where == "file":
        file.write_text(FILE.replace("replicas: 2", 'replicas: "${EMBEDDS:-0}"'))
    found = plan(file, scale={"embedd": 0} if where == "argument" else {})
    assert [each.label for each in found.replicas] == ["gateway", "chatd"]


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        (dict.fromkeys(("gateway", "embedd", "chatd"), 0), "nothing would run"),
        ({"ollama": 0}, "there is no daemon 'ollama'"),
    ],
)
def test_scaling_to_nothing_has_bounds(file: Path, scale: dict[str, int], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        plan(file, scale=scale)


def test_what_means_something_to_containers_alone_is_passed_over(file: Path) -> None:
    alone = "    read_only: true\n    depends_on: [chatd]\n    x-note: mine\n"
    file.write_text(FILE.replace("    secrets: [openai]\n", f"    secrets: [openai]\n{alone}"))
    assert len(plan(file).replicas) == 4


def test_some_daemons_may_be_run_alone(file: Path) -> None:
    found = plan(file, "gateway", "embedd", scale={"embedd": 1})
    assert [each.label for each in found.replicas] == ["gateway", "embedd"]
    assert variables(found, "gateway")["GATEWAY_CHATD_URLS"] == "http://127.0.0.1:3103"


def test_a_name_stands_for_all_replicas_where_several_may_be_given(file: Path) -> None:
    found = plan(file)
    assert variables(found, "gateway")["GATEWAY_EMBEDD_URLS"] == "http://127.0.0.1:4101,http://127.0.0.1:4201"
    assert variables(found, "chatd")["CHATD_VECTORD_URL"] == "http://127.0.0.1:4101"


def test_what_is_published_listens_where_it_is_published(file: Path) -> None:
    gateway = plan(file, environment={"GATEWAY_PORT": "8000"}).replicas[0]
    assert gateway.url == "http://127.0.0.1:8000"
    file.write_text(FILE.replace("127.0.0.1:${GATEWAY_PORT:-3100}:3100", "3200:3100"))
    gateway = plan(file).replicas[0]
    assert (gateway.spec.host, gateway.port) == ("0.0.0.0", 3200)


def test_volumes_lie_below_the_data_folder_and_binds_where_they_are(file: Path) -> None:
    found = plan(file)
    data = file.parent / "data" / "volumes"
    assert variables(found, "gateway")["STILLHOUSE_DATA"] == str(data / "keys")
    assert variables(found, "chatd")["CHATD_CONFIG"] == str(file.parent / "config" / "chatd.toml")
    assert found.folders == (data / "keys", data / "spool", data / "warm")


def test_a_secret_is_its_file(file: Path) -> None:
    assert variables(plan(file), "embedd")["EMBEDD_OPENAI_API_KEY_FILE"] == str(file.parent / "openai.txt")
    (file.parent / "openai.txt").unlink()
    with pytest.raises(InvalidRequest, match=r"the secret 'openai' has no file .*openai\.txt"):
        plan(file)


def test_a_secret_of_another_user_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # tests may run as root, who reads everything
    with pytest.raises(InvalidRequest, match="the secret 'openai': this user may not read"):
        plan(file)


def test_images_are_expected_at_the_port_that_they_publish(file: Path) -> None:
    found = plan(file)
    assert variables(found, "embedd")["OLLAMA_HOST"] == "http://127.0.0.1:12000/base"
    assert found.notes == ("ollama is not run, being an image; it is expected at 127.0.0.1:12000",)


def test_other_hosts_stay_as_they_are(file: Path) -> None:
    assert variables(plan(file), "embedd")["EMBEDD_OPENAI_URL"] == "https://api.example.com/v1"


def test_numbers_are_texts(file: Path) -> None:
    assert variables(plan(file), "chatd")["CHATD_PEER_TIMEOUT_S"] == "5"


@pytest.mark.parametrize("way", ["argument", "variable", "dotenv"])
def test_a_profile_is_turned_on(file: Path, way: str) -> None:
    environment = {"VALKEY": "redis://:secret@valkey:6379/0"}
    if way == "variable":
        environment["COMPOSE_PROFILES"] = "other,scale"
    if way == "dotenv":
        (file.parent / ".env").write_text("COMPOSE_PROFILES=scale\nVALKEY=redis://elsewhere:1/0\n")
    found = plan(file, environment=environment, profiles=("scale",) if way == "argument" else ())
    assert variables(found, "embedd")["EMBEDD_L2_URL"] == "redis://:secret@127.0.0.1:6379/0"


def test_a_service_whose_profile_is_off_cannot_be_asked(file: Path) -> None:
    with pytest.raises(InvalidRequest, match="asks valkey, which runs only with the profile scale"):
        plan(file, environment={"VALKEY": "redis://valkey:6379/0"})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${NAME}", "x"),
        ("$NAME", "x"),
        ("${NAME:-d}", "x"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${NONE-d}", "d"),
        ("${NONE}", ""),
        ("a${NAME}b$$c", "axb$c"),
        ("${NAME:?said}", "x"),
    ],
)
def test_variables_are_filled_in_as_compose_does(file: Path, text: str, value: str) -> None:
    file.write_text(FILE.replace("CHATD_PEER_TIMEOUT_S: 5", f'TEXT: "{text}"'))
    found = plan(file, environment={"NAME": "x", "EMPTY": ""})
    assert variables(found, "chatd")["TEXT"] == value


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("DAEMON=embedd", "DAEMON=embed", "a service has the name of the daemon"),
        ("http://embedd:3101", "http://embedd:3102", "asks embedd at port 3102; it listens on 3101"),
        ("http://embedd:3101", "http://embedd", "asks embedd without a port"),
        ("/config/chatd.toml", "/etc/chatd.toml", "no volume and no secret is mounted there"),
        ("${VALKEY:-}", "${VALKEY:?where?}", "the variable VALKEY is needed: where?"),
        ("${VALKEY:-}", "${A:-${B}}", "begins no variable"),
        ("${VALKEY:-}", "50$", "begins no variable"),
        ('"spool:/data"', "{type: tmpfs, target: /data}", "`services.chatd.volumes.1`"),
        ("12000:11434", "12000-12010:11434-11444", "`services.ollama.ports.0`"),
        (
            "CHATD_PEER_TIMEOUT_S: 5",
            "CHATD_PEER_TIMEOUT_S:",
            "`services.chatd.environment.CHATD_PEER_TIMEOUT_S`",
        ),
        ("services:", "services: [", "is not YAML"),
        ("services:", "service:", "`services`: Field required"),
        (
            "http://embedd:3101",
            "http://embed:3101",
            "asks embed, which is no service; there are chatd, embedd",
        ),
        ("replicas: 2", "replicas: -1", "`services.embedd.deploy.replicas`"),
        (
            "    secrets: [openai]",
            "    secrets: [openai]\n    env_file: x.env",
            "`services.embedd.env_file` is not understood here",
        ),
        ("    secrets: [openai]", "    enviroment: {}", "`services.embedd.enviroment` is not understood"),
        (
            "secrets:\n  openai",
            "include: [more.yaml]\nsecrets:\n  openai",
            "`include` is not understood here",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said(file: Path, old: str, new: str, said: str) -> None:
    assert said in refusal(file, old, new)


@pytest.mark.parametrize("content", ["", "- services", "services"])
def test_a_file_without_services_is_said(tmp_path: Path, content: str) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(content)
    with pytest.raises(InvalidRequest, match="holds no services"):
        read_compose(file, {})


def test_a_profile_that_there_is_not_is_said(file: Path) -> None:
    with pytest.raises(InvalidRequest, match="no profile 'scal'; there are scale"):
        plan(file, profiles=("scal",))
    assert plan(file, environment={"COMPOSE_PROFILES": "another-files"}).replicas


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read: No such file"):
        read_compose(tmp_path / "none.yaml", {})


def test_scaling_what_there_is_one_of_is_refused(file: Path) -> None:
    with pytest.raises(InvalidRequest, match="there is one gateway"):
        plan(file, scale={"gateway": 2})
