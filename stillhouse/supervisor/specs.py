"""Which daemons there are: where they listen, who asks whom, what may be scaled."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from stillhouse.settings import CliSettings

LOOPBACK: Final = "127.0.0.1"
WILDCARDS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound


@dataclass(frozen=True, slots=True)
class DaemonSpec:
    """One kind of daemon, run as `python -m <module>`.

    `single` is why there can be only one process of it, None where there may be several. Daemons of a lower
    `stop_phase` are gone before those of a higher one are asked to stop, so that whoever is still answering
    finds what it needs. `peers` are the variables that tell other daemons where this one is (its first
    replica), `replicas_variable` the one that lists all of them. `variables` are for its own processes alone.
    """

    name: str
    module: str
    port: int
    host: str = LOOPBACK
    scheme: str = "http"
    single: str | None = None
    stop_phase: int = 0
    peers: tuple[str, ...] = ()
    replicas_variable: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """The prefix of its environment variables."""
        return f"{self.name.upper()}_"


MODELD: Final = "modeld"
GATEWAY: Final = "gateway"
OWNS_ITS_FOLDER: Final = "it owns its data folder, which two processes would corrupt"


def usual_port(name: str) -> int:
    """The port of a daemon that was told nothing, as in a container."""
    port: int = CliSettings.model_fields[f"{name}_port"].default
    return port


def daemon_specs(settings: CliSettings, *, host: str | None = None) -> tuple[DaemonSpec, ...]:
    """All daemons of Stillhouse. Only the gateway, the one door, listens on `host`."""
    return (
        DaemonSpec(
            GATEWAY,
            GATEWAY,
            settings.gateway_port,
            host=host or settings.gateway_host,
            scheme="http" if settings.gateway_tls_certificate is None else "https",
            single="it counts the limits of keys in its own memory, so that two would allow twice as much",
            stop_phase=0,
        ),
        DaemonSpec(
            "embedd",
            "embedd",
            settings.embedd_port,
            stop_phase=3,
            peers=("VECTORD_EMBEDD_URL",),
            replicas_variable="GATEWAY_EMBEDD_URLS",
        ),
        DaemonSpec(
            "vectord",
            "vectord",
            settings.vectord_port,
            single=OWNS_ITS_FOLDER,
            stop_phase=2,
            peers=("CHATD_VECTORD_URL", "DISTILL_VECTORD_URL"),
            replicas_variable="GATEWAY_VECTORD_URLS",
        ),
        DaemonSpec(
            "chatd",
            "chatd",
            settings.chatd_port,
            stop_phase=1,
            peers=("DISTILL_CHATD_URL",),
            replicas_variable="GATEWAY_CHATD_URLS",
        ),
        DaemonSpec(
            "distill",
            "distill",
            settings.distill_port,
            single=OWNS_ITS_FOLDER,
            stop_phase=2,
            peers=("CHATD_DISTILL_URL",),
            replicas_variable="GATEWAY_DISTILL_URLS",
        ),
        DaemonSpec(
            "validators",
            "validators",
            settings.validators_port,
            stop_phase=2,
            peers=("CHATD_VALIDATORS_URL", "DISTILL_VALIDATORS_URL"),
            replicas_variable="GATEWAY_VALIDATORS_URLS",
        ),
        DaemonSpec(
            MODELD,
            MODELD,
            settings.modeld_port,
            single="the other daemons know one OLLAMA_HOST",
            stop_phase=4,
        ),
    )
