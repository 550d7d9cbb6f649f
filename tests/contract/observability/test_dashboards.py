"""Dashboards, alerts and scrapes speak of what there is: metrics, ports, runbooks."""

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from anyio import run
from hypothesis import given
from hypothesis import strategies as st

from deploy.observability import dashboards
from gateway.engine import overhead
from services.testing import client_for
from tests.generate import DAEMONS, settings_type

pytestmark = pytest.mark.enable_socket

ROOT: Final = Path(__file__).parents[3]
OBSERVABILITY: Final = ROOT / "deploy" / "observability"
RUNBOOKS: Final = ROOT / "docs" / "runbooks.md"

PROMETHEUS_OWN: Final = {"up"}
PROCESS: Final = {"process_max_fds", "process_open_fds"}
KEYWORDS: Final = {"and", "or", "unless", "bool", "offset", "inf", "nan"}
GROUPING: Final = r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)"
NO_STORE: Final = "redis://127.0.0.1:9"
OPTIONAL: Final = {"gateway": {"limits_url": NO_STORE}, "embedd": {"l2_url": NO_STORE}}
"""What must be set for metrics to be there at all."""

TEXTS: Final = r'"[^"]*"'
SELECTORS: Final = r"\{[^}]*\}|\[[^\]]*\]"
NUMBERS: Final = r"\b\d[\d.]*[a-z]*\b"
NOT_NAMES: Final = re.compile(f"{TEXTS}|{SELECTORS}|{GROUPING}|{NUMBERS}")
NAME: Final = re.compile(r"[a-zA-Z_:][\w:]*(?!\s*\()\b(?!\s*\()")
LABELS: Final = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")
RATED: Final = re.compile(r"\b(?:rate|increase)\(([\w:]+)")
BY: Final = re.compile(r"\bby\s*\(([^)]*)\)")
BURNING: Final = re.compile(r"(\w+:\w+):ratio_(\w+) > ([\d.]+) \* ([\d.]+)")
MINUTES: Final = {"m": 1, "h": 60, "d": 24 * 60}
COUNTED_FROM_NOTHING: Final = {"TornTail", "JobFailed"}
"""Alerts on counters that nobody has seen before something happened, so that there was no increase."""


def names_in(expression: str) -> set[str]:
    """The metrics that an expression asks for."""
    return set(NAME.findall(NOT_NAMES.sub(" ", expression))) - KEYWORDS


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("up == 0", {"up"}),
        ('sum by (le, a) (rate(x_bucket{job="and", a=~"b.."}[5m])) / (y > 0)', {"x_bucket", "y"}),
        ("increase(a_total[1h]) > 0 or b:c:ratio_5m > 14.4 * 0.001", {"a_total", "b:c:ratio_5m"}),
        ("histogram_quantile(0.99, sum(rate(x_bucket[$__rate_interval])))", {"x_bucket"}),
    ],
)
def test_names_are_found_in_expressions(expression: str, names: set[str]) -> None:
    assert names_in(expression) == names


@given(st.from_regex(r"[a-z][a-z_]{3,12}", fullmatch=True).filter(lambda name: name not in KEYWORDS))
def test_a_metric_that_does_not_exist_would_be_noticed(name: str) -> None:
    assert names_in(f'sum by (job) (rate({name}{{job="x"}}[5m])) > 0.5') == {name}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The series that each daemon can have, by its own `/metrics`, and of which kind each is."""

    async def scraped(daemon: str) -> str:
        values = {"data": tmp_path_factory.mktemp(daemon), **OPTIONAL.get(daemon, {})}
        settings = settings_type(daemon).model_validate(values)
        app = importlib.import_module(f"{daemon}.app").create_app(settings)
        async with client_for(app) as client:
            await client.get("/nothing")
            return (await client.get("/metrics")).text

    return {daemon: dict(_series(run(scraped, daemon))) for daemon in DAEMONS}


def _series(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            yield name, kind
            if kind == "histogram":
                yield from ((f"{name}_{part}", "counter") for part in ("bucket", "sum", "count"))


@pytest.fixture(scope="module")
def kinds(published: dict[str, dict[str, str]]) -> dict[str, str]:
    return {name: kind for series in published.values() for name, kind in series.items()}


def expressions() -> Iterator[tuple[str, str]]:
    """What dashboards and alerts ask, with where it stands."""
    for dashboard in dashboards.dashboards():
        for panel in dashboard.panels:
            for expression, _ in panel.queries:
                yield f"{dashboard.name}: {panel.title}", expression
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((OBSERVABILITY / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_metric_that_is_asked_for_exists(kinds: dict[str, str]) -> None:
    known = kinds.keys() | PROMETHEUS_OWN | PROCESS
    known |= {rule["record"] for rule in rules() if "record" in rule}
    unknown = {where: names_in(expression) - known for where, expression in expressions()}
    assert {where: names for where, names in unknown.items() if names} == {}


def test_rates_are_of_counters_and_counters_are_read_as_rates(kinds: dict[str, str]) -> None:
    for where, expression in expressions():
        rated = set(RATED.findall(expression))
        assert {kinds[name] for name in rated} <= {"counter"}, where
        if where not in COUNTED_FROM_NOTHING:
            assert "counter" not in {kinds.get(name) for name in names_in(expression) - rated}, where


def test_quantiles_are_of_buckets_that_keep_their_bounds() -> None:
    for where, expression in expressions():
        for one in expression.split("histogram_quantile(")[1:]:
            assert re.match(r"[\d.]+, sum by \(le[,)]", one), where
            assert "_bucket" in one, where


def test_every_line_of_a_graph_has_a_name_of_its_own() -> None:
    """What is not put together is told apart by its replica, the rest by what it is put together by."""
    for dashboard in dashboards.dashboards():
        for panel in dashboard.panels:
            for expression, legend in panel.queries:
                by = {label.strip() for labels in BY.findall(expression) for label in labels.split(",")}
                own = {"instance"} if not re.search(r"\b(?:sum|max|min)\b", expression) else by - {"le"}
                told = set(re.findall(r"{{(\w+)}}", legend))
                assert told >= own or ":ratio_" in expression, (dashboard.name, panel.title, legend)


def test_every_daemon_has_what_all_have(published: dict[str, dict[str, str]]) -> None:
    for daemon, names in published.items():
        assert {
            dashboards.REQUESTS,
            "http_requests_in_flight",
            "event_loop_lag_seconds",
            "event_loop_tasks",
        } <= names.keys(), daemon
    chatd = published["chatd"].keys()
    assert {"gen_ai_client_token_usage", "gen_ai_client_operation_duration_seconds"} <= chatd
    assert "gateway_overhead_seconds" in published["gateway"]


def test_the_dashboards_in_the_repository_are_those_of_the_script() -> None:
    made = {f"{one.name}.json": dashboards.rendered(one) for one in dashboards.dashboards()}
    kept = {path.name: path.read_text(encoding="utf-8") for path in dashboards.FOLDER.glob("*.json")}
    assert kept == made, "run `python deploy/observability/dashboards.py`"


def test_dashboards_are_what_grafana_reads() -> None:
    bodies = [json.loads(dashboards.rendered(one)) for one in dashboards.dashboards()]
    assert [body["uid"] for body in bodies] == [f"stillhouse-{name}" for name in ("overview", *DAEMONS)]
    provisioned = yaml.safe_load(
        (OBSERVABILITY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )
    sources = {source["uid"] for source in provisioned["datasources"]}
    for body in bodies:
        places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in body["panels"]]
        assert len(set(places)) == len(places)
        assert {panel["datasource"]["uid"] for panel in body["panels"]} <= sources
        assert all(target["expr"].count("(") == target["expr"].count(")") for target in _targets(body))


def _targets(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in body["panels"]:
        yield from panel["targets"]


def test_alerts_have_a_severity_and_a_runbook_that_exists() -> None:
    chapters = {
        re.sub(r"[^\w-]", "", line.removeprefix("## ").strip().lower().replace(" ", "-"))
        for line in RUNBOOKS.read_text(encoding="utf-8").splitlines()
        if line.startswith("## ")
    }
    alerts = [rule for rule in rules() if "alert" in rule]
    assert len({alert["alert"] for alert in alerts}) == len(alerts)
    for alert in alerts:
        page, _, anchor = alert["annotations"]["runbook"].partition("#")
        assert page == "docs/runbooks.md"
        assert anchor in chapters, alert["alert"]
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert alert["annotations"]["summary"]
        assert alert["expr"].count("(") == alert["expr"].count(")")


def test_every_daemon_is_scraped_where_it_listens() -> None:
    scrapes = yaml.safe_load((OBSERVABILITY / "prometheus.yml").read_text())["scrape_configs"]
    ports = {one["job_name"]: one["dns_sd_configs"][0]["port"] for one in scrapes}
    assert ports == {daemon: settings_type(daemon).model_fields["port"].default for daemon in DAEMONS}
    assert all(one["dns_sd_configs"][0]["names"] == [one["job_name"]] for one in scrapes)


def test_labels_that_select_http_series_exist() -> None:
    http = {"job", "instance", "le", "http_route", "http_request_method", "http_response_status_code"}
    for where, expression in expressions():
        for selector in re.findall(r"http_server_request_duration_seconds\w*\{([^}]*)\}", expression):
            assert set(LABELS.findall(selector)) <= http, where


def _minutes(window: str) -> int:
    return int(window[:-1]) * MINUTES[window[-1]]


def test_budgets_burn_over_a_long_window_and_a_twelfth_of_it() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    burning = {rule["alert"]: BURNING.findall(rule["expr"]) for rule in rules() if "alert" in rule}
    alerts = {alert: conditions for alert, conditions in burning.items() if conditions}
    assert {series for conditions in alerts.values() for series, *_ in conditions} == {
        "gateway:errors",
        "gateway:slow",
    }
    for alert, conditions in alerts.items():
        for (series, long, *bound), (other, short, *same) in zip(
            conditions[::2], conditions[1::2], strict=True
        ):
            assert (series, bound) == (other, same), alert
            assert _minutes(long) == 12 * _minutes(short), alert
            assert {f"{series}:ratio_{window}" for window in (long, short)} <= recorded, alert


def test_a_window_is_recorded_over_itself() -> None:
    for rule in rules():
        if "record" in rule:
            windows = set(re.findall(r"\[(\w+)\]", rule["expr"]))
            assert windows == {rule["record"].rpartition("_")[2]}


def test_the_bound_of_the_objective_is_one_of_the_histogram() -> None:
    asked = {bound for rule in rules() for bound in re.findall(r'le="([^"]+)"', rule["expr"])}
    assert asked == {"0.025"}
    assert asked <= set(map(str, overhead.SECONDS))


def test_a_daemon_that_is_gone_altogether_is_missed() -> None:
    (rule,) = (rule for rule in rules() if rule.get("alert") == "DaemonAbsent")
    missed = set(re.findall(r'absent\(up{job="(\w+)"}\)', rule["expr"]))
    assert missed == set(DAEMONS) - {"modeld"}, "an Ollama may take modeld's place"
