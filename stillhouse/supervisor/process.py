"""One supervised process: started, watched until ready, started again when it dies, stopped when asked."""

import asyncio
import contextlib
import os
import signal
import time
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from services.tasks import task_set
from stillhouse.supervisor.logs import LineSplitter, LogOutput
from stillhouse.supervisor.plan import Replica
from stillhouse.supervisor.probe import Unready
from stillhouse.supervisor.runfile import ProcessEntry, ProcessState

READ_BYTES = 65536
LAST_WORDS_TIMEOUT_S = 1.0  # output still in the pipe when the process is gone

Probe = Callable[[str], Awaitable[Unready | None]]
"""Asks the daemon at a URL whether it is ready: None when it is."""


@dataclass(frozen=True, slots=True)
class Policy:
    """When to try again, in seconds. A life of `stable_s` makes the next death a first one."""

    backoff_first_s: float = 0.2
    backoff_max_s: float = 10.0
    stable_s: float = 30.0
    failed_after: int = 5
    poll_s: float = 0.1
    poll_max_s: float = 2.0
    poll_growth: float = 1.2  # who is long unready is asked less often: its probes cost and log something


class SupervisedProcess:
    """Keeps one replica running until it is told to stop."""

    def __init__(
        self,
        replica: Replica,
        environment: Mapping[str, str],
        *,
        lifeline_fd: int,
        output: LogOutput,
        probe: Probe,
        on_change: Callable[[], None],
        policy: Policy,
    ) -> None:
        self.replica = replica
        self.reason: str | None = "is starting"
        self.ready = asyncio.Event()
        self._environment = environment
        self._lifeline_fd = lifeline_fd
        self._output = output
        self._probe = probe
        self._on_change = on_change
        self._policy = policy
        self._state: ProcessState = "starting"
        self._child: Process | None = None
        self._started_at: datetime | None = None
        self._restarts = 0
        self._deaths_in_a_row = 0
        self._stopping = asyncio.Event()
        self._signal: signal.Signals | None = None
        self.killed = False

    def entry(self) -> ProcessEntry:
        """This process as the run file shows it."""
        return ProcessEntry(
            name=self.replica.spec.name,
            replica=self.replica.number,
            pid=self._child.pid if self._child is not None else None,
            port=self.replica.port,
            url=self.replica.url,
            state=self._state,
            started_at=self._started_at,
            restarts=self._restarts,
        )

    async def run(self) -> None:
        """Run until `retire` was called and the process is gone."""
        delay_s = self._policy.backoff_first_s
        while not self._stopping.is_set():
            born = time.monotonic()
            end = await self._live()
            if self._stopping.is_set():
                return
            if time.monotonic() - born >= self._policy.stable_s:
                delay_s = self._policy.backoff_first_s
                self._deaths_in_a_row = 0
            self._mourn(end, delay_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._stopping.wait()
            delay_s = min(delay_s * 2, self._policy.backoff_max_s)

    def retire(self) -> None:
        """From here on a death is final. The process is not yet asked to stop: see `send`."""
        self._stopping.set()
        self._change("stopping")

    def send(self, number: signal.Signals) -> None:
        """Send SIGTERM or SIGKILL; a child that is just being started gets it as soon as it is there."""
        self._signal = number
        if self._child is None or self._child.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                self.killed = True
                os.killpg(self._child.pid, number)  # it leads a session: whatever it started goes too
            else:
                self._child.send_signal(number)

    def _mourn(self, end: str, delay_s: float) -> None:
        self._deaths_in_a_row += 1
        self._restarts += 1
        self.reason = end
        self._output.say(f"{self.replica.label} {end}; starting it again in {delay_s:g} s")
        failed = self._deaths_in_a_row >= self._policy.failed_after
        self._change("failed" if failed else "restarting")

    def _change(self, state: ProcessState) -> None:
        self._state = state
        if state == "ready":
            self.reason = None
            self.ready.set()
        else:
            self.ready.clear()
        self._on_change()

    async def _live(self) -> str:
        """One life, from start to death. Returns how it ended."""
        try:
            async with self._spawned() as child, task_set() as tasks:
                tasks.start(self._watch(), name=f"watch {self.replica.label}")
                status = await child.wait()
        except OSError as error:
            return f"could not be started: {error.strerror}"
        finally:
            self._child = None
        if status < 0:
            return f"was ended by {signal.Signals(-status).name}"
        return f"exited with status {status}"

    @contextlib.asynccontextmanager
    async def _spawned(self) -> AsyncIterator[Process]:
        """Start the child, with its output copied until the end of the block.

        The pipe is ours rather than asyncio's, whose `wait` may not return while anybody else holds it open.
        """
        read_end, write_end = os.pipe()
        try:
            child = await asyncio.create_subprocess_exec(
                *self.replica.command,
                env=self._environment,
                stdin=DEVNULL,
                stdout=write_end,
                stderr=STDOUT,
                start_new_session=True,  # Ctrl-C reaches the supervisor alone
                pass_fds=(self._lifeline_fd,),
            )
        except OSError:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        self._child = child
        self._started_at = datetime.now(UTC)
        self._on_change()
        if self._signal is not None:
            self.send(self._signal)
        try:
            async with task_set() as tasks:
                copying = tasks.start(self._copy(read_end), name=f"copy {self.replica.label}")
                yield child
                await asyncio.wait([copying], timeout=LAST_WORDS_TIMEOUT_S)
        finally:
            if child.returncode is None:  # we are being torn down: leave nothing behind
                self.send(signal.SIGKILL)

    async def _copy(self, read_end: int) -> None:
        reader = asyncio.StreamReader(limit=READ_BYTES)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", 0)
        )
        splitter = LineSplitter()
        try:
            while chunk := await reader.read(READ_BYTES):
                for line in splitter.feed(chunk):
                    self._output.put(self.replica.label, line)
            for line in splitter.close():
                self._output.put(self.replica.label, line)
        finally:
            transport.close()

    async def _watch(self) -> None:
        """Look until the daemon is ready. From then on its death is the sign, and `status` asks it itself."""
        wait_s = self._policy.poll_s
        while (unready := await self._probe(self.replica.url)) is not None:
            self.reason = unready.reason
            await asyncio.sleep(wait_s)
            if unready.serves:
                wait_s = min(wait_s * self._policy.poll_growth, self._policy.poll_max_s)
        if not self._stopping.is_set():
            self._deaths_in_a_row = 0
            self._change("ready")
