"""Becomes the daemon that an image is of, or asks it whether it serves. Knows the standard library alone.

python entry.py [ARGUMENT…]     run the module, with the arguments
python entry.py health          exit with 0 if it serves, with 1 otherwise
"""

import http.client
import os
import ssl
import sys
from collections.abc import Mapping, Sequence

PORTS = {
    "gateway": 3100,
    "embedd": 3101,
    "vectord": 3102,
    "chatd": 3103,
    "distill": 3104,
    "validators": 3105,
    "modeld": 11435,
}
ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - inside a container, loopback would be of no use to anybody
TIMEOUT_S = 4.0


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    module = environment["MODULE"]
    if arguments == ["health"]:
        raise SystemExit(0 if serves(module, environment) else 1)
    variables = {f"{module.upper()}_HOST": ANY_ADDRESS, **environment}
    command = [sys.executable, "-P", "-m", module, *arguments]
    os.execve(sys.executable, command, variables)  # noqa: S606 - what an entry point is for


def serves(daemon: str, environment: Mapping[str, str]) -> bool:
    """Whether the daemon of this container answers `/healthz`."""
    prefix = daemon.upper()
    port = int(environment.get(f"{prefix}_PORT") or PORTS[daemon])
    connection = _connection(port, tls=bool(environment.get(f"{prefix}_TLS_CERTIFICATE")))
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _connection(port: int, *, tls: bool) -> http.client.HTTPConnection:
    if not tls:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    trusting = ssl.create_default_context()  # the certificate is for a name that loopback does not have
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT_S, context=trusting)


if __name__ == "__main__":
    main(sys.argv[1:], os.environ)  # noqa: TID251 - the image tells it what it is
