"""A network namespace behind a wire, for daemons that are reached over a network of their own.

`python -m tests.chaos.netns NAMESPACE MODULE` runs a module in a namespace, in place of itself.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

import pytest

from tests.chaos.wire import Quality
from tests.processes import ROOT

NEAR: Final = "10.213.77.1"
FAR: Final = "10.213.77.2"
FAR_TOO: Final = "10.213.77.3"
PREFIX: Final = 24
SUBNET: Final = f"10.213.77.0/{PREFIX}"
TIMEOUT_S: Final = 10.0


@dataclass(frozen=True)
class Network:
    """A namespace, reached at `FAR` and `FAR_TOO` from here, and the wire to it."""

    namespace: str
    device: str
    orders: IO[str]

    def set_quality(self, quality: Quality) -> None:
        print(json.dumps(asdict(quality)), file=self.orders, flush=True)

    def unplug(self) -> None:
        """Take the device down, which this side notices at once; nobody does with a wire that was cut."""
        ip("link", "set", self.device, "down")

    def plug(self) -> None:
        ip("link", "set", self.device, "up")

    def program(self, module: str) -> tuple[str, ...]:
        """What runs a module in there, as `started` takes it."""
        return ("-m", "tests.chaos.netns", self.namespace, module)

    @contextmanager
    def names(self, addresses: Mapping[str, Sequence[str]]) -> Iterator["Names"]:
        """What names stand for in there, to processes that are started now."""
        folder = Path("/etc/netns") / self.namespace
        folder.mkdir(parents=True)
        try:
            names = Names(folder / "hosts")
            names.set(addresses)
            yield names
        finally:
            shutil.rmtree(folder)


@dataclass(frozen=True)
class Names:
    """The hosts file of a namespace."""

    file: Path

    def set(self, addresses: Mapping[str, Sequence[str]]) -> None:
        """Write in place: `ip netns exec` binds the file itself, and would not see another of its name."""
        lines = [f"{address} {name}\n" for name, each in addresses.items() for address in each]
        self.file.write_text("127.0.0.1 localhost\n" + "".join(lines))


def ip(*arguments: str) -> None:
    """Raises `CalledProcessError` with what `ip` says to it."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=TIMEOUT_S)


def require() -> None:
    """Skip the test where no namespace or no device can be made."""
    if shutil.which("ip") is None:
        pytest.skip("there is no `ip` (iproute2)")
    if not Path("/dev/net/tun").exists():
        pytest.skip("there is no /dev/net/tun")
    name = f"stillhouse-try-{os.getpid()}"
    tried = subprocess.run(
        ["ip", "netns", "add", name], check=False, capture_output=True, timeout=TIMEOUT_S, text=True
    )
    if tried.returncode:
        pytest.skip(f"no network namespace may be made here: {tried.stderr.strip()}")
    ip("netns", "delete", name)


@contextmanager
def network() -> Iterator[Network]:
    """Make the namespace and the wire; both are gone afterwards, whatever happened."""
    require()
    namespace = f"stillhouse-{os.getpid()}"
    near, far = f"shn{os.getpid()}", f"shf{os.getpid()}"
    with ExitStack() as stack:
        ip("netns", "add", namespace)
        stack.callback(ip, "netns", "delete", namespace)
        wire = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.wire", near, far],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(wire.kill)
        assert wire.stdin is not None
        assert wire.stdout is not None
        assert wire.stdout.readline() == "ready\n"
        ip("link", "set", far, "netns", namespace)
        ip("address", "add", f"{NEAR}/{PREFIX}", "dev", near)
        ip("link", "set", near, "up")
        # Without the device, packets for the namespace must not leave this machine another way.
        ip("route", "add", "unreachable", SUBNET, "metric", "1000")
        stack.callback(ip, "route", "delete", "unreachable", SUBNET, "metric", "1000")
        inside = ("-n", namespace)
        ip(*inside, "link", "set", "lo", "up")
        for address in (FAR, FAR_TOO):
            ip(*inside, "address", "add", f"{address}/{PREFIX}", "dev", far)
        ip(*inside, "link", "set", far, "up")
        yield Network(namespace, near, wire.stdin)


if __name__ == "__main__":
    _, inside, module = sys.argv
    os.execvp("ip", ["ip", "netns", "exec", inside, sys.executable, "-m", module])
