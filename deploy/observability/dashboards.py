"""Writes the Grafana dashboards: one a daemon, and an overview. Run it after a change of metrics.

python deploy/observability/dashboards.py
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent / "grafana" / "dashboards"
DAEMONS: Final = ("gateway", "embedd", "vectord", "chatd", "distill", "validators", "modeld")

WINDOW: Final = "[$__rate_interval]"
REQUESTS: Final = "http_server_request_duration_seconds"
PANELS_A_ROW: Final = 3
WIDTH: Final = 24 // PANELS_A_ROW
HEIGHT: Final = 8


@dataclass(frozen=True)
class Panel:
    """A graph: queries with their legends. `unit` is one of Grafana's: `s`, `reqps`, `percentunit` …"""

    title: str
    unit: str
    queries: Sequence[tuple[str, str]]
    description: str = ""


@dataclass(frozen=True)
class Dashboard:
    name: str
    title: str
    panels: Sequence[Panel]


def total(series: str, by: str = "") -> str:
    """Of all replicas together."""
    return f"sum by ({by}) ({series})" if by else f"sum({series})"


def worst(series: str, by: str = "") -> str:
    """Of the replica that has most: for what each of them says of the same thing."""
    return f"max by ({by}) ({series})" if by else f"max({series})"


def rate(series: str, by: str = "") -> str:
    return total(f"rate({series}{WINDOW})", by)


def in_an_hour(series: str, by: str = "") -> str:
    """How often something rare happened: a counter itself would fall back to 0 with each restart."""
    return total(f"increase({series}[1h])", by)


def quantile(share: float, histogram: str, by: str = "") -> str:
    """Of a histogram, whose name may carry a selector: `name{…}`."""
    name, brace, selector = histogram.partition("{")
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{name}_bucket{brace}{selector}', labels)})"


def times(title: str, histogram: str, by: str = "", description: str = "") -> Panel:
    """A histogram's median and its p99."""
    legend = f" {{{{{by}}}}}" if by else ""
    queries = [(quantile(share, histogram, by), f"p{share * 100:g}{legend}") for share in (0.5, 0.99)]
    return Panel(title, "s", queries, description)


def share(part: str, whole: str) -> str:
    """One rate as a share of another; nothing while nothing happens."""
    return f"{part} / ({whole} > 0)"


def named(title: str, panels: Sequence[Panel]) -> Panel:
    return next(panel for panel in panels if panel.title == title)


def common(daemon: str) -> list[Panel]:
    """What every daemon has."""
    mine = f'{{job="{daemon}"}}'
    failed = f'{{job="{daemon}", http_response_status_code=~"5.."}}'
    return [
        Panel("Requests", "reqps", [(rate(f"{REQUESTS}_count{mine}", "http_route"), "{{http_route}}")]),
        Panel(
            "Answers with 5xx",
            "percentunit",
            [(share(rate(f"{REQUESTS}_count{failed}"), rate(f"{REQUESTS}_count{mine}")), "share")],
        ),
        times("Time to answer", f"{REQUESTS}{mine}"),
        Panel("In flight", "short", [(f"http_requests_in_flight{mine}", "{{instance}}")]),
        times(
            "Event loop lag",
            f"event_loop_lag_seconds{mine}",
            description="How late the loop runs a timer: as long a request waits before it is read.",
        ),
        Panel("Tasks", "short", [(f"event_loop_tasks{mine}", "{{instance}}")]),
        Panel("Memory", "bytes", [(f"process_resident_memory_bytes{mine}", "{{instance}}")]),
        Panel("Processor", "short", [(f"rate(process_cpu_seconds_total{mine}{WINDOW})", "{{instance}}")]),
        Panel("Open files", "short", [(f"process_open_fds{mine}", "{{instance}}")]),
    ]


GATEWAY: Final = [
    times(
        "Overhead",
        "gateway_overhead_seconds",
        "daemon",
        "The gateway's own share of a request's time, waiting for a place or a connection included.",
    ),
    Panel(
        "Replicas",
        "short",
        [
            (worst("gateway_replicas", "daemon"), "{{daemon}}"),
            (worst("gateway_replicas_ejected", "daemon"), "{{daemon}} passed over"),
        ],
        "Where several gateways do not agree, the most that one of them sees.",
    ),
    Panel(
        "Under way to daemons",
        "short",
        [
            (total("gateway_upstream_in_flight", "daemon"), "{{daemon}}"),
            (total("gateway_upstream_waiting", "daemon"), "{{daemon}}, waiting for a place"),
        ],
    ),
    Panel(
        "Shared limits",
        "short",
        [
            ("gateway_shared_limits_up", "in use at {{instance}}"),
            ("increase(gateway_shared_limits_errors_total[1h])", "errors in an hour at {{instance}}"),
        ],
        "Where GATEWAY_LIMITS_URL names a store.",
    ),
]
HITS, MISSES = rate("embedd_cache_hits_total"), rate("embedd_cache_misses_total")
EMBEDD: Final = [
    Panel("Cache hits", "percentunit", [(share(HITS, f"({HITS} + {MISSES})"), "share")]),
    Panel(
        "Cache",
        "bytes",
        [(total("embedd_cache_bytes"), "vectors"), (total("embedd_fragment_bytes"), "encoded")],
    ),
    Panel(
        "Evictions and joins",
        "cps",
        [(rate("embedd_cache_evictions_total"), "evicted"), (rate("embedd_joined_total"), "joined")],
    ),
    Panel("Texts that wait", "short", [("embedd_waiting_texts", "{{instance}}")]),
    times("Wait for a backend", "embedd_queue_seconds"),
    times("Time of a backend", "embedd_upstream_seconds"),
    Panel(
        "Calls of backends",
        "cps",
        [
            (rate("embedd_upstream_calls_total"), "calls"),
            (rate("embedd_upstream_failures_total"), "failures"),
        ],
    ),
    Panel("Texts a call", "short", [(quantile(0.5, "embedd_batch_texts"), "p50")]),
    Panel("Backends in use", "short", [("embedd_backends_up", "{{instance}}")]),
    Panel(
        "Shared cache",
        "cps",
        [
            (rate("embedd_shared_hits_total"), "hits"),
            (rate("embedd_shared_misses_total"), "misses"),
            (rate("embedd_shared_errors_total"), "errors"),
            (rate("embedd_shared_dropped_total"), "not written"),
        ],
        "Where EMBEDD_L2_URL names a store.",
    ),
]
VECTORD: Final = [
    times("Search", "vectord_search_seconds", "mode"),
    Panel("Recall at 10", "percentunit", [("min by (collection) (vectord_recall_at_10)", "{{collection}}")]),
    Panel(
        "Leaks of the gate",
        "short",
        [
            (in_an_hour("vectord_gate_leaks_total"), "stopped after the index"),
            (in_an_hour("vectord_canary_leaks_total"), "seen by canaries"),
            (in_an_hour("vectord_canaries_missing_total"), "canaries not found"),
        ],
        "In an hour. All of them must stay 0.",
    ),
    Panel(
        "Points",
        "cps",
        [
            (rate("vectord_points_upserted_total"), "written"),
            (rate("vectord_points_deleted_total"), "deleted"),
        ],
    ),
    Panel("Store calls that wait", "short", [("vectord_waiting", "{{instance}}")]),
    times("Rebuilds of indexes", "vectord_optimize_seconds"),
    Panel("Collections", "short", [("vectord_collections", "{{instance}}")]),
    Panel("Canary probes", "cps", [(rate("vectord_canary_probes_total"), "probes")]),
]
TOKENS: Final = "gen_ai_client_token_usage"
OPERATION: Final = "gen_ai_client_operation_duration_seconds"
CHATD: Final = [
    Panel("Calls", "cps", [(rate("chatd_calls_total", "provider, outcome"), "{{provider}} {{outcome}}")]),
    Panel(
        "Failed attempts",
        "percentunit",
        [
            (
                share(
                    rate('chatd_attempts_total{result!="ok"}', "provider"),
                    rate("chatd_attempts_total", "provider"),
                ),
                "{{provider}}",
            )
        ],
    ),
    times("Time of an attempt", OPERATION, "gen_ai_request_model"),
    times("Time to the first token", "chatd_ttft_seconds", "provider"),
    Panel(
        "Tokens",
        "cps",
        [
            (
                rate(f"{TOKENS}_sum", "gen_ai_request_model, gen_ai_token_type"),
                "{{gen_ai_request_model}} {{gen_ai_token_type}}",
            )
        ],
    ),
    Panel(
        "Cost",
        "currencyUSD",
        [(in_an_hour("chatd_cost_usd_total", "provider"), "{{provider}}")],
        "In an hour, as far as prices are known.",
    ),
    Panel(
        "Attempts under way",
        "short",
        [(total("chatd_in_flight"), "under way"), (total("chatd_waiting"), "waiting")],
    ),
    Panel("Circuits open", "short", [("chatd_circuits_open", "{{instance}}")]),
    Panel(
        "Spool",
        "short",
        [("chatd_spool_records", "{{instance}}")],
        "Records that distill has not acknowledged.",
    ),
    Panel("Iterations", "cps", [(rate("chatd_iterations_total", "outcome"), "{{outcome}}")]),
    Panel(
        "Gated answers",
        "cps",
        [(rate("chatd_gated_answers_total", "verdict, outcome"), "{{verdict}} {{outcome}}")],
    ),
    Panel(
        "Hedges, drained, cached",
        "cps",
        [
            (rate("chatd_hedges_total"), "hedges"),
            (rate("chatd_drained_total"), "drained"),
            (rate("chatd_cache_hits_total"), "from the cache"),
        ],
    ),
]
DISTILL: Final = [
    Panel("Records kept", "cps", [(rate("distill_records_appended_total", "schema"), "{{schema}}")]),
    Panel(
        "Records not kept",
        "cps",
        [
            (rate("distill_records_rejected_total", "code"), "{{code}}"),
            (rate("distill_records_repeated_total"), "known already"),
        ],
    ),
    Panel(
        "Log",
        "bytes",
        [(total("distill_log_bytes"), "on the disk"), (total("distill_waiting_bytes"), "waiting")],
    ),
    Panel("Records a group", "short", [(quantile(0.5, "distill_group_records"), "p50")]),
    Panel("Groups made durable", "cps", [(rate("distill_fsyncs_total"), "fsyncs")]),
    Panel(
        "Jobs",
        "short",
        [
            (in_an_hour("distill_jobs_total", "stage, state"), "{{stage}} {{state}}"),
            (total("distill_job_running"), "running"),
        ],
        "Ended in an hour, and running now.",
    ),
    Panel(
        "Left out by stages",
        "short",
        [(in_an_hour("distill_quarantined_total", "stage"), "{{stage}}")],
        "Records in an hour.",
    ),
    Panel("Datasets", "short", [(total("distill_datasets"), "datasets")]),
    Panel(
        "Drift",
        "short",
        [(worst("distill_drifted", "what"), "{{what}}")],
        "Differences that are no accident.",
    ),
    Panel(
        "Contexts caught",
        "short",
        [
            (in_an_hour("distill_contexts_caught_total", "reason"), "{{reason}}"),
            (in_an_hour("distill_own_group_contexts_total"), "of the own group"),
        ],
        "Passages in an hour.",
    ),
]
VALIDATORS: Final = [
    Panel("Verdicts", "cps", [(rate("validators_verdicts_total", "kind, verdict"), "{{kind}} {{verdict}}")]),
    Panel("Findings", "cps", [(f"topk(15, {rate('validators_findings_total', 'code')})", "{{code}}")]),
    times("Time of a check", "validators_check_seconds", "kind"),
    Panel("Workers on the roster", "short", [("validators_roster_rows", "{{instance}}")]),
    Panel(
        "Files that cannot be used",
        "short",
        [(worst("validators_roster_refused"), "roster"), (worst("validators_policy_refused"), "policy")],
    ),
]
MODELD: Final = [
    Panel("Tokens", "cps", [(rate("modeld_tokens_total", "model, direction"), "{{model}} {{direction}}")]),
    Panel("Texts embedded", "cps", [(rate("modeld_embedded_texts_total", "model"), "{{model}}")]),
    Panel("Requests that wait", "short", [(total("modeld_waiting", "kind"), "{{kind}}")]),
    Panel("Models in memory", "short", [(total("modeld_loaded", "model"), "{{model}}")]),
]
OBJECTIVES: Final = [
    Panel(
        "Budget of errors, burning",
        "short",
        [(f"gateway:errors:ratio_{window} / 0.001", window) for window in ("1h", "6h", "3d")],
        "1: what the objective allows in 30 days is gone in 30 days. 14.4: in two.",
    ),
    Panel(
        "Budget of overhead, burning",
        "short",
        [(f"gateway:slow:ratio_{window} / 0.01", window) for window in ("1h", "6h", "3d")],
        "The same of requests that lost more than 25 ms in the gateway.",
    ),
]
OVERVIEW: Final = [
    Panel("Up", "short", [(total("up", "job"), "{{job}}")]),
    Panel("Requests", "reqps", [(rate(f"{REQUESTS}_count", "job"), "{{job}}")]),
    Panel(
        "Answers with 5xx",
        "percentunit",
        [
            (
                share(
                    rate(f'{REQUESTS}_count{{http_response_status_code=~"5.."}}', "job"),
                    rate(f"{REQUESTS}_count", "job"),
                ),
                "{{job}}",
            )
        ],
    ),
    Panel("Time to answer, p99", "s", [(quantile(0.99, REQUESTS, "job"), "{{job}}")]),
    Panel(
        "Overhead of the gateway, p99",
        "s",
        [(quantile(0.99, "gateway_overhead_seconds", "daemon"), "{{daemon}}")],
    ),
    Panel("Event loop lag, p99", "s", [(quantile(0.99, "event_loop_lag_seconds", "job"), "{{job}}")]),
    *OBJECTIVES,
    named("Cache hits", EMBEDD),
    named("Tokens", CHATD),
    named("Cost", CHATD),
    named("Verdicts", VALIDATORS),
    named("Spool", CHATD),
    named("Records kept", DISTILL),
    named("Recall at 10", VECTORD),
    named("Leaks of the gate", VECTORD),
    Panel("Memory", "bytes", [(total("process_resident_memory_bytes", "job"), "{{job}}")]),
]
OWN: Final = {
    "gateway": GATEWAY,
    "embedd": EMBEDD,
    "vectord": VECTORD,
    "chatd": CHATD,
    "distill": DISTILL,
    "validators": VALIDATORS,
    "modeld": MODELD,
}


def dashboards() -> Iterator[Dashboard]:
    yield Dashboard("overview", "Stillhouse: overview", OVERVIEW)
    for daemon in DAEMONS:
        yield Dashboard(daemon, f"Stillhouse: {daemon}", [*OWN[daemon], *common(daemon)])


def rendered(dashboard: Dashboard) -> str:
    """The dashboard as Grafana reads it from a file."""
    body = {
        "uid": f"stillhouse-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["stillhouse"],
        "timezone": "browser",
        "editable": False,
        "schemaVersion": 41,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [{"type": "dashboards", "tags": ["stillhouse"], "asDropdown": True, "title": "Daemons"}],
        "panels": [_panel(number, panel) for number, panel in enumerate(dashboard.panels)],
    }
    return json.dumps(body, indent=1) + "\n"


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, PANELS_A_ROW)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": {"type": "prometheus", "uid": "prometheus"},
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, "custom": {"fillOpacity": 8, "showPoints": "never"}},
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": expression, "legendFormat": legend}
            for place, (expression, legend) in enumerate(panel.queries)
        ],
    }


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for dashboard in dashboards():
        (FOLDER / f"{dashboard.name}.json").write_text(rendered(dashboard), encoding="utf-8")


if __name__ == "__main__":
    main()
