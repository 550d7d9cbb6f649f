"""The story that `stillhouse demo` plays: from one job order to training data, on real models."""

import itertools
import random
import statistics
import string
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from schemas.distill import Job, JobAccepted
from schemas.embeddings import EmbeddingResponse
from schemas.iterate import IterateAttempt, IterateResponse
from schemas.runs import ModelRef, Run, RunOutput, RunRequest, RunsAccepted, Task
from schemas.vectors import Collection, RetrieveResponse, RoleCatalogue, UpsertResponse
from schemas.verdicts import ValidatorList, Verdict
from services import ids
from services.errors import Conflict, PlatformError, UpstreamError, UpstreamTimeout
from stillhouse.client import GatewayClient
from stillhouse.demo import prompts
from stillhouse.demo.account import Account
from stillhouse.demo.learning import learn
from stillhouse.demo.stage import Stage, build_world, daemons
from stillhouse.settings import CliSettings

EMBED_MODEL = "all-minilm"
CHAT_MODEL = "smollm2:135m"
WORKERS, NOTES = "demo-workers", "demo-notes"
POINTS_A_CALL = 200
LATENCY_TEXTS = 40
JOB_TIMEOUT_S = 120.0
RECORD_TIMEOUT_S = 30.0
POLL_S = 0.1
ATTEMPTS_MAX = 3


def run(settings: CliSettings, console: Console, *, keep: bool, seed: int) -> int:
    """Play it. 0 when every step did its work, 1 with the reason when one did not."""
    account = Account(console)
    folder = settings.data / "demo" / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        account.step(f"A staffing agency, made up from seed {seed}")
        stage = build_world(folder / "world", seed)
        account.say(f"{len(stage.workers):,} workers, {len(stage.notes)} notes on past fills, {stage.roster}")
        account.step("The daemons")
        with daemons(settings, stage, folder / "data") as crew:
            account.say(f"{crew.who} ({time.monotonic() - started:.1f} s)")
            with GatewayClient(settings.model_copy(update={"timeout_s": 300.0})) as gateway:
                Play(gateway, stage, account, crew.datasets).play()
            account.step(f"Done in {time.monotonic() - started:.0f} s")
            if keep:
                _wait_for_ctrl_c(account, settings)
    except PlatformError as error:
        account.warn(f"this step failed: {error.message}")
        return 1
    return 0


def _wait_for_ctrl_c(account: Account, settings: CliSettings) -> None:
    account.say(f"the daemons answer at {settings.gateway_url} until Ctrl-C")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return


def _batches(items: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def worker_points(workers: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """A point for each role of each worker: what a search by meaning finds, with what a filter asks for."""
    for worker in workers:
        name = f"{worker['first_name']} {worker['last_name']}"
        place = f"{worker['city']}, {worker['state']}"
        cards = ", ".join(cert["code"] for cert in worker["certs"]) or "none"
        for role in worker["roles"]:
            yield {
                "id": f"{worker['worker_id']}/{role}",
                "role": role,
                "text": f"{worker['worker_id']} {name}, {role} in {place}. Cards: {cards}.",
                "payload": {key: worker[key] for key in ("worker_id", "city", "state", "status")},
            }


def note_points(notes: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for note in notes:
        payload = {key: note[key] for key in ("group", "city", "state", "client_id")}
        yield {"id": note["id"], "role": note["role"], "text": note["text"], "payload": payload}


class Play:
    """The steps, in order. Each raises `PlatformError` when it cannot do its work."""

    def __init__(self, gateway: GatewayClient, stage: Stage, account: Account, datasets: Path | None) -> None:
        self._gateway = gateway
        self._stage = stage
        self._account = account
        self._datasets = datasets
        self._run_ids: list[str] = []

    def play(self) -> None:
        self._check_roster()
        self._index()
        self._retrieve()
        worker = self._draft_fill()
        self._draft_sms(worker)
        self._past_drafts()
        self._wait_for_runs()
        self._distill()
        learn(self._gateway, self._account, self._job, chat_model=CHAT_MODEL, embed_model=EMBED_MODEL)
        self._latency()

    # --- what is known ----------------------------------------------------------------------

    def _check_roster(self) -> None:
        listed = self._gateway.get("/v1/validators", ValidatorList)
        roster = listed.roster
        if roster is None or roster.sha256 != self._stage.manifest.sha256["roster.parquet"]:
            raise Conflict("the validators have not loaded the demo's roster")
        codes = sum(len(kind.codes) for kind in listed.validators)
        kinds = ", ".join(kind.kind for kind in listed.validators)
        self._account.say(f"validators: {codes} finding codes for {kinds}; roster {roster.sha256[:12]}…")

    def _index(self) -> None:
        self._account.step("Index: workers and notes, embedded for real")
        self._catalogue()
        for name, points in (
            (NOTES, list(note_points(self._stage.notes))),
            (WORKERS, list(worker_points(self._stage.workers))),
        ):
            started = time.monotonic()
            self._gateway.delete_if_there(f"/v1/collections/{name}")
            spec = {"model": EMBED_MODEL, "gated": True, "payload_indexes": {"city": "keyword"}}
            self._gateway.put(f"/v1/collections/{name}", Collection, spec)
            with self._account.progress(f"indexing {name}", len(points)) as advance:
                for batch in _batches(points, POINTS_A_CALL):
                    body = {"points": batch}
                    stored = self._gateway.put(f"/v1/collections/{name}/points", UpsertResponse, body)
                    advance(stored.upserted)
            made = self._gateway.get(f"/v1/collections/{name}", Collection)
            if made.count != len(points):
                raise UpstreamError(f"{name} holds {made.count} points of {len(points)}")
            seconds = time.monotonic() - started
            self._account.say(
                f"{name}: {made.count:,} points of {made.dimension} dimensions in {seconds:.1f} s"
                f" ({made.count / seconds:,.0f} a second)"
            )

    def _catalogue(self) -> None:
        ours = RoleCatalogue.model_validate(self._stage.roles)
        known = self._gateway.get("/v1/roles", RoleCatalogue)
        if known.roles and known != ours:
            raise Conflict(
                "the running vectord has a role catalogue of its own, which the demo will not replace"
            )
        self._gateway.put("/v1/roles", RoleCatalogue, self._stage.roles)
        self._account.say(f"role catalogue: {len(ours.roles)} roles")

    def _retrieve(self) -> None:
        order = self._stage.order
        self._account.step(f"Retrieve for “{prompts.request_of(order)}”, behind the role gate")
        query = {
            "query": f"{order.role} in {order.city}, {order.state}",
            "collections": [WORKERS, NOTES],
            "k": 8,
        }
        found = self._gateway.post("/v1/retrieve", RetrieveResponse, {**query, "role": order.role})
        catalogue = RoleCatalogue.model_validate(self._stage.roles)
        allowed = {order.role, *next(role.compatible for role in catalogue.roles if role.name == order.role)}
        for hit in found.hits:
            self._account.say(f"{hit.score:.3f} {hit.role}: {(hit.text or '')[:90]}")
        leaked = [hit for hit in found.hits if hit.role not in allowed]
        if leaked or not found.hits:
            raise UpstreamError(
                f"{len(found.hits)} hits, {len(leaked)} of them of a role that was not asked for"
            )
        self._account.say(f"gate: {found.gate.checked} hits checked, all of {' or '.join(sorted(allowed))}")
        try:
            self._gateway.post("/v1/retrieve", RetrieveResponse, {**query, "role": "anything"})
        except PlatformError as error:
            self._account.say(f"a role nobody knows is refused: {error.message}")
        else:
            raise UpstreamError("a search for an unknown role was answered")

    # --- drafting ---------------------------------------------------------------------------

    def _draft_fill(self) -> Mapping[str, Any]:
        """Draft the fill; the worker to write to: from the draft when it was accepted, else a valid one."""
        order = self._stage.order
        self._account.step(f"Draft the fill with {CHAT_MODEL}, validate, repair")
        result = self._iterate(
            prompts.fill_messages(order),
            {"kind": "fill", "context": {"order": order.model_dump(mode="json", exclude_none=True)}},
            {"collections": [WORKERS, NOTES], "role": order.role, "k": 8},
        )
        by_id = {worker["worker_id"]: worker for worker in self._stage.workers}
        if result.ok and isinstance(result.artifact, dict):
            chosen: list[Any] = result.artifact["fills"]  # type: ignore[assignment] # the validator saw to it
            return by_id[chosen[0]["worker_id"]]
        self._account.say("the order goes to a person; the text message below is for a worker who is free")
        return by_id[self._stage.valid[0]]

    def _draft_sms(self, worker: Mapping[str, Any]) -> None:
        self._account.step(f"Draft a text message to worker {worker['worker_id']}")
        recipient = {"worker_id": worker["worker_id"]}
        self._iterate(
            prompts.sms_messages(self._stage.order, worker),
            {"kind": "sms", "context": {"recipient": recipient, "audience": "worker", "segments_max": 2}},
            None,
        )

    def _iterate(
        self, messages: list[dict[str, Any]], validate: dict[str, Any], retrieve: dict[str, Any] | None
    ) -> IterateResponse:
        body = {
            "messages": messages,
            "model": CHAT_MODEL,
            "validate": validate,
            "attempts_max": ATTEMPTS_MAX,
            "temperature": 0.0,
        }
        if retrieve is not None:
            body["retrieve"] = retrieve
        result = self._gateway.post("/v1/iterate", IterateResponse, body)
        for number, attempt in enumerate(result.attempts, start=1):
            self._say_attempt(number, attempt)
            self._run_ids.append(attempt.run_id)
        verdict = f"{result.outcome}: {result.verdict.verdict}"
        if result.ok:
            self._account.say(verdict, style="green")
        else:
            self._account.warn(f"{verdict}. The small model did not manage it, and nothing was let through")
        return result

    def _say_attempt(self, number: int, attempt: IterateAttempt) -> None:
        draft = orjson.dumps(attempt.artifact).decode()
        self._account.say(f"attempt {number}: {draft[:200]}{'…' if len(draft) > 200 else ''}")
        for finding in attempt.findings[:6]:
            self._account.say(
                f"  {finding.severity} {finding.code} at {finding.path or '/'}: {finding.message}"
            )
        if len(attempt.findings) > 6:
            self._account.say(f"  and {len(attempt.findings) - 6} more findings")

    # --- evidence ---------------------------------------------------------------------------

    def _past_drafts(self) -> None:
        self._account.step("Validate past message drafts, and record them with their verdicts")
        kinds = {kind.kind for kind in self._gateway.get("/v1/validators", ValidatorList).validators}
        drafts = [draft for draft in self._stage.drafts if draft["kind"] in kinds]
        lines = [{key: draft[key] for key in ("kind", "artifact", "context")} for draft in drafts]
        verdicts = self._gateway.post_lines("/v1/validate/batch", Verdict, lines)
        defects = [pair for pair in zip(drafts, verdicts, strict=True) if pair[0]["defect"] is not None]
        missed = [draft for draft, verdict in defects if draft["defect"] not in _codes(verdict)]
        clean = [verdict for draft, verdict in zip(drafts, verdicts, strict=True) if draft["defect"] is None]
        alarms = [verdict for verdict in clean if not verdict.ok]
        self._account.say(
            f"{len(defects) - len(missed)} of {len(defects)} planted defects caught with their code"
        )
        self._account.say(f"{len(alarms)} false alarms on {len(clean)} drafts that are fine")
        common = Counter(draft["defect"] for draft, _ in defects).most_common(4)
        self._account.say("such as " + ", ".join(f"{code} ({count})" for code, count in common))
        if missed or alarms:
            raise UpstreamError("the validator was wrong about a draft")
        people = {worker["worker_id"]: worker for worker in self._stage.workers}
        runs = [_past_run(draft, verdict, people) for draft, verdict in zip(drafts, verdicts, strict=True)]
        body = b"".join(run.to_line() for run in runs)
        accepted = self._gateway.post_ndjson("/v1/runs", RunsAccepted, body)
        if accepted.accepted != len(runs):
            raise UpstreamError(f"{len(runs) - accepted.accepted} of {len(runs)} runs were not recorded")
        self._account.say(f"{accepted.accepted} runs on disk ({accepted.durability})")

    def _wait_for_runs(self) -> None:
        """Every attempt of the model must have reached distill: it hands them over in the background."""
        deadline = time.monotonic() + RECORD_TIMEOUT_S
        missing = list(self._run_ids)
        while missing:
            missing = [run_id for run_id in missing if not self._gateway.has(f"/v1/runs/{run_id}")]
            if missing and time.monotonic() > deadline:
                raise UpstreamTimeout(f"{len(missing)} runs did not reach distill in {RECORD_TIMEOUT_S:g} s")
            time.sleep(POLL_S if missing else 0)
        self._account.say(f"{len(self._run_ids)} runs of {CHAT_MODEL} recorded, each with its verdict")

    def _distill(self) -> None:
        self._account.step("Distill: runs to evidence, categories, training files")
        self._say_counts(self._job(stage="materialize"))
        self._say_counts(self._job(stage="score"))
        for kind, target in (("sft", "openai"), ("preference", "openai"), ("rag", None)):
            body = {"stage": "export", "kind": kind} | ({"target": target} if target else {})
            try:
                self._say_export(self._job(**body))
            except UpstreamError as error:
                if kind != "preference" or error.code != "nothing_to_export":
                    raise
                # A pair is a rejected draft and its accepted repair, and the model may not have managed one.
                self._account.warn(f"no preference pairs this time: {error.message}")

    def _job(self, **body: object) -> Job:
        accepted = self._gateway.post("/v1/distill/jobs", JobAccepted, body)
        deadline = time.monotonic() + JOB_TIMEOUT_S
        while time.monotonic() < deadline:
            job = self._gateway.get(f"/v1/distill/jobs/{accepted.job_id}", Job)
            if job.state == "done":
                return job
            if job.state == "failed" and job.error is not None:
                raise UpstreamError(f"{body['stage']} failed: {job.error.message}", code=job.error.code)
            time.sleep(POLL_S)
        raise UpstreamTimeout(f"{body['stage']} took longer than {JOB_TIMEOUT_S:g} s")

    def _say_counts(self, job: Job) -> None:
        counts = ", ".join(f"{name} {count}" for name, count in job.counts.items())
        self._account.say(f"{job.stage}: {counts}")

    def _say_export(self, job: Job) -> None:
        self._say_counts(job)
        for product in job.products:
            self._account.say(f"  {product.name}: {product.lines} lines, sha256 {product.sha256[:12]}…")
        where = (
            self._datasets / str(job.dataset_id)
            if self._datasets
            else f"GET /v1/distill/datasets/{job.dataset_id}"
        )
        self._account.say(f"  in {where}")

    # --- the cache --------------------------------------------------------------------------

    def _latency(self) -> None:
        self._account.step("Cold against warm embeddings, through gateway and embedd")
        chance = random.Random(time.time_ns())  # noqa: S311 - texts that no cache has seen, not secrets
        texts = ["".join(chance.choices(string.ascii_lowercase, k=40)) for _ in range(LATENCY_TEXTS)]
        cold, warm = (sorted(self._embed_ms(text) for text in texts) for _ in range(2))
        cold_p50, warm_p50 = statistics.median(cold), statistics.median(warm)
        self._account.say(f"cold: p50 {cold_p50:.2f} ms, slowest {cold[-1]:.2f} ms")
        self._account.say(
            f"warm: p50 {warm_p50:.2f} ms, slowest {warm[-1]:.2f} ms: {cold_p50 / warm_p50:.1f} times as fast"
        )

    def _embed_ms(self, text: str) -> float:
        started = time.perf_counter()
        self._gateway.post("/v1/embeddings", EmbeddingResponse, {"model": EMBED_MODEL, "input": text})
        return (time.perf_counter() - started) * 1000


def _codes(verdict: Verdict) -> set[str]:
    return {finding.code for finding in verdict.findings}


def _past_run(draft: Mapping[str, Any], verdict: Verdict, people: Mapping[str, Mapping[str, Any]]) -> Run:
    """A draft of the sample world as a run of whoever wrote it, so that it can be scored like any other, and
    done again.
    """
    worker = people.get(draft["context"]["recipient"].get("worker_id", ""))
    return Run(
        run_id=ids.uuid7(),
        ts=datetime.now(UTC),
        task=Task(kind=draft["kind"], key=draft["id"]),
        request=RunRequest(messages=prompts.draft_messages(draft, worker)),
        model=ModelRef(provider="sample-world", name="drafts"),
        output=RunOutput(content=orjson.dumps(draft["artifact"]).decode(), finish_reason="stop"),
        verdict=verdict,
        ext={"validate": {"kind": draft["kind"], "context": draft["context"]}},
    )
