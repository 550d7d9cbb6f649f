"""The id of a run's evidence: made of its content alone, so that it is the same wherever it is computed."""

from typing import Any, Final

from schemas.canonical import content_id
from schemas.evidence import EvidenceInput
from schemas.runs import Run

SOURCE_KIND: Final = "stillhouse"
IDENTITY_VERSION: Final = "1"
"""Part of every id: a change of what is hashed is a new version, never a silent other id."""


def role_of(run: Run) -> str | None:
    """The job role of the retrieved texts, where they agree on one."""
    roles = {text.role for text in run.retrieved_context if text.role is not None}
    return roles.pop() if len(roles) == 1 else None


def input_of(run: Run) -> EvidenceInput:
    return EvidenceInput(
        messages=run.request.messages,
        tools=run.request.tools,
        params=run.request.params,
        retrieved_context=run.retrieved_context,
    )


def evidence_id_of(run: Run) -> str:
    """sha256 over RFC 8785 canonical JSON of source key and normalised payload, the output included.

    Times, usage, principal, verdict and feedback are no part of it: the id must not change when more
    becomes known of the same run.
    """
    identity: dict[str, Any] = {
        "version": IDENTITY_VERSION,
        "source": {"kind": SOURCE_KIND, "key": run.run_id},
        "payload": {
            "task": run.task.model_dump(mode="json") if run.task else None,
            "role": role_of(run),
            "input": input_of(run).model_dump(mode="json"),
            "output": run.output.model_dump(mode="json") if run.output else None,
            "model": run.model.model_dump(mode="json"),
        },
    }
    return content_id(identity)
