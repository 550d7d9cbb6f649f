"""Runs a set of daemons as one: all started at once, kept alive, stopped in order, none left behind."""

import asyncio
import contextlib
import functools
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from services.tasks import task_set
from stillhouse.supervisor.logs import LogOutput
from stillhouse.supervisor.plan import Replica, own_environment
from stillhouse.supervisor.ports import check_ports
from stillhouse.supervisor.probe import ask, new_client
from stillhouse.supervisor.process import Policy, Probe, SupervisedProcess
from stillhouse.supervisor.runfile import RunFile, RunFolder
from stillhouse.supervisor.specs import GATEWAY

KILL_TIMEOUT_S = 5.0  # SIGKILL cannot be refused, but a process in the kernel may be late

Running = dict[SupervisedProcess, asyncio.Task[None]]


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: until the unready are named, and until those that do not stop are killed."""

    ready_s: float = 10.0
    stop_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """What to run, and where: the processes, their common environment, the data folder (absolute)."""

    replicas: Sequence[Replica]
    environment: Mapping[str, str]
    data: Path


class Supervisor:
    """Runs a fleet until asked to stop.

        with LogOutput(labels, terminal=False) as output:
            clean = await Supervisor(fleet, output).run()

    SIGINT, SIGTERM and SIGHUP ask it to stop while `run` is under way, as does `stop`; a second one kills.
    `lifeline_fd` is the read end of a pipe that whoever started us holds: its closing asks us to stop, too.
    """

    def __init__(
        self,
        fleet: Fleet,
        output: LogOutput,
        *,
        policy: Policy | None = None,
        patience: Patience | None = None,
        lifeline_fd: int | None = None,
    ) -> None:
        self._fleet = fleet
        self._output = output
        self._policy = policy or Policy()
        self._patience = patience or Patience()
        self._lifeline_fd = lifeline_fd
        self._folder = RunFolder(fleet.data)
        self._started_at = datetime.now(UTC)
        self._began = time.monotonic()
        self._stop = asyncio.Event()
        self._processes: list[SupervisedProcess] = []

    async def run(self) -> bool:
        """Run until asked to stop. Returns whether every process stopped by itself.

        Raises `Conflict` when the data folder has a supervisor already, or a port is taken.
        """
        with self._folder.locked(), _lifeline() as lifeline_fd, self._asked():
            check_ports(self._fleet.replicas)
            async with new_client() as client, task_set() as tasks:
                probe = functools.partial(ask, client)
                self._processes = [
                    self._process(replica, lifeline_fd, probe) for replica in self._fleet.replicas
                ]
                self._write()
                running = {
                    process: tasks.start(process.run(), name=process.replica.label)
                    for process in self._processes
                }
                tasks.start(self._announce(), name="announce")
                await self._stop.wait()
                return await self._shut_down(running)

    def stop(self) -> None:
        """Ask for an orderly stop; asked again, kill."""
        if self._stop.is_set():
            for process in self._processes:
                process.send(signal.SIGKILL)
        self._stop.set()

    def _process(self, replica: Replica, lifeline_fd: int, probe: Probe) -> SupervisedProcess:
        return SupervisedProcess(
            replica,
            own_environment(self._fleet.environment, replica, lifeline_fd),
            lifeline_fd=lifeline_fd,
            output=self._output,
            probe=probe,
            on_change=self._write,
            policy=self._policy,
        )

    def _write(self) -> None:
        entries = tuple(process.entry() for process in self._processes)
        self._folder.write(RunFile(pid=os.getpid(), started_at=self._started_at, processes=entries))

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        """Listen to whoever may ask us to stop."""
        loop = asyncio.get_running_loop()
        numbers = [
            number
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            if signal.getsignal(number) != signal.SIG_IGN  # nohup means what it says
        ]
        for number in numbers:
            loop.add_signal_handler(number, self.stop)
        if self._lifeline_fd is not None:
            loop.add_reader(self._lifeline_fd, self._starter_gone, self._lifeline_fd)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
            if self._lifeline_fd is not None:
                loop.remove_reader(self._lifeline_fd)

    def _starter_gone(self, lifeline_fd: int) -> None:
        asyncio.get_running_loop().remove_reader(lifeline_fd)
        self._output.say("whoever started the supervisor is gone")
        self.stop()

    async def _announce(self) -> None:
        """Say once when all are ready; before that, once, who is not and why."""
        try:
            async with asyncio.timeout(self._patience.ready_s):
                await self._all_ready()
        except TimeoutError:
            for process in self._processes:
                if process.reason is not None:
                    self._output.say(f"{process.replica.label} is not ready yet: {process.reason}")
            await self._all_ready()
        count = len(self._processes)
        everybody = f"all {count} daemons are" if count > 1 else f"{self._processes[0].replica.label} is"
        took_s = time.monotonic() - self._began
        self._output.say(f"{everybody} ready after {took_s:.1f} s: {self._where()}")

    async def _all_ready(self) -> None:
        while (late := next((each for each in self._processes if not each.ready.is_set()), None)) is not None:
            await late.ready.wait()

    def _where(self) -> str:
        for replica in self._fleet.replicas:
            if replica.spec.name == GATEWAY:
                return f"{replica.url} (try `stillhouse status` or `stillhouse models`; Ctrl-C stops)"
        return ", ".join(replica.url for replica in self._fleet.replicas)

    async def _shut_down(self, running: Running) -> bool:
        """Stop phase by phase: whoever still answers finds what it needs."""
        self._output.say("stopping; once more kills at once")
        deadline = time.monotonic() + self._patience.stop_s
        for process in running:
            process.retire()
        ordered = sorted(running, key=_phase)
        for _, group in groupby(ordered, key=_phase):
            phase = list(group)
            for process in phase:
                process.send(signal.SIGTERM)
            await _gone(running, phase, deadline - time.monotonic())
        stragglers = [process for process, task in running.items() if not task.done()]
        for process in stragglers:
            self._output.say(
                f"{process.replica.label} did not stop in {self._patience.stop_s:g} s: killing it"
            )
            process.send(signal.SIGKILL)
        await _gone(running, stragglers, KILL_TIMEOUT_S)
        killed = [process for process in running if process.killed]
        self._output.say(f"stopped ({len(killed)} killed)" if killed else "stopped")
        return not killed


def _phase(process: SupervisedProcess) -> int:
    return process.replica.spec.stop_phase


async def _gone(running: Running, processes: Iterable[SupervisedProcess], timeout_s: float) -> None:
    tasks = [running[process] for process in processes]
    if tasks:
        await asyncio.wait(tasks, timeout=max(0.0, timeout_s))


@contextlib.contextmanager
def _lifeline() -> Iterator[int]:
    """The read end of a pipe that children inherit; it closes when this process ends, however it does."""
    read_end, write_end = os.pipe()
    try:
        yield read_end
    finally:
        os.close(write_end)
        os.close(read_end)
