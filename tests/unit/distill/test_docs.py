import re
from pathlib import Path

from prometheus_client import CollectorRegistry

from distill.engine import Metrics

ROOT = Path(__file__).parents[3]
REASON = re.compile(r'"((?:row|split|input|output|pair|target|pii)\.[a-z_]+)", f?"')


def test_every_reason_is_documented() -> None:
    page = (ROOT / "docs" / "datasets.md").read_text()
    sources = [path.read_text() for path in (ROOT / "distill" / "engine" / "exports").glob("*.py")]
    reasons = {one for source in sources for one in REASON.findall(source)}
    assert len(reasons) > 20
    assert [reason for reason in sorted(reasons) if f"`{reason}`" not in page] == []


def test_every_metric_is_documented() -> None:
    page = (ROOT / "docs" / "distill.md").read_text()
    registry = CollectorRegistry()
    Metrics(registry)
    names = {metric.name for metric in registry.collect()}
    assert [name for name in sorted(names) if name not in page] == []
