import re
from pathlib import Path

from prometheus_client import CollectorRegistry

from distill.engine import Metrics

ROOT = Path(__file__).parents[3]


def test_every_reason_and_metric_is_documented() -> None:
    page = (ROOT / "docs" / "distill.md").read_text()
    source = "".join(
        (ROOT / "distill" / "engine" / f"{name}.py").read_text() for name in ("plans", "targets")
    )
    reasons = set(re.findall(r'Unfit\(\s*"([a-z_.]+)"', source))
    registry = CollectorRegistry()
    Metrics(registry)
    names = {metric.name for metric in registry.collect()}
    assert len(reasons) > 10
    assert [name for name in sorted(reasons | names) if name not in page] == []
