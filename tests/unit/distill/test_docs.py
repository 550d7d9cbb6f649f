import re
from pathlib import Path

from prometheus_client import CollectorRegistry

from distill.engine import Metrics

ROOT = Path(__file__).parents[3]


def test_every_reason_is_documented() -> None:
    page = (ROOT / "docs" / "datasets.md").read_text()
    sources = [path.read_text() for path in (ROOT / "distill" / "engine" / "exports").glob("*.py")]
    found = {one for source in sources for one in re.findall(r'"([a-z]+\.[a-z_]+)", f?"', source)}
    reasons = {one for one in found if not one.startswith("stillhouse.")}
    assert len(reasons) > 20
    assert [reason for reason in sorted(reasons) if f"`{reason}`" not in page] == []


def test_every_metric_is_documented() -> None:
    page = (ROOT / "docs" / "distill.md").read_text()
    registry = CollectorRegistry()
    Metrics(registry)
    names = {metric.name for metric in registry.collect()}
    assert [name for name in sorted(names) if name not in page] == []
