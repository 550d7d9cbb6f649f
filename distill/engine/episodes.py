"""The episodes of replays: how they are named, so that what a replay did is known wherever it turns up."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

REPLAY: Final = "replay."
"""How their names begin."""


def name_of(execution: str, task_id: str, repeat: int) -> str:
    """The episode in which one run of a replay does a task for the `repeat`-th time."""
    name = f"{execution}\0{task_id}\0{repeat}"
    return f"{REPLAY}{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def is_replay(evidence: Mapping[str, Any]) -> bool:
    """Whether the evidence comes from a replay: it repeats a task, and is none."""
    return (evidence.get("episode_id") or "").startswith(REPLAY)
