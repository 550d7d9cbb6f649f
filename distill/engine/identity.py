"""The id of a call's evidence: made of its content alone, so that it is the same wherever it is computed."""

from typing import Any, Final

from distill.engine.sources import OWN, Turn
from distill.engine.sources.stillhouse import turn_of
from schemas.canonical import content_id
from schemas.runs import Run

IDENTITY_VERSION: Final = "1"
"""Part of every id: a change of what is hashed is a new version, never a silent other id."""


def role_of(turn: Turn) -> str | None:
    """The job role of the retrieved texts, where they agree on one."""
    roles = {text["role"] for text in turn.context if text["role"] is not None}
    return roles.pop() if len(roles) == 1 else None


def input_of(turn: Turn) -> dict[str, Any]:
    """What was put before the model, as `schemas.evidence.EvidenceInput`."""
    return {
        "messages": turn.messages,
        "tools": turn.tools,
        "params": turn.params,
        "retrieved_context": turn.context,
    }


def id_of_turn(kind: str, turn: Turn) -> str:
    """sha256 over RFC 8785 canonical JSON of source key and normalised payload, the output included.

    Times, usage, principal, verdict and feedback are no part of it: the id must not change when more
    becomes known of the same call. Raises `ValueError` for numbers that have no canonical form.
    """
    identity: dict[str, Any] = {
        "version": IDENTITY_VERSION,
        "source": {"kind": kind, "key": turn.key},
        "payload": {
            "task": turn.task,
            "role": role_of(turn),
            "input": input_of(turn),
            "output": turn.output,
            "model": turn.model,
        },
    }
    return content_id(identity)


def evidence_id_of(run: Run) -> str:
    """The id of the evidence that a run of our own log becomes."""
    return id_of_turn(OWN, turn_of(run.model_dump(mode="json")))
