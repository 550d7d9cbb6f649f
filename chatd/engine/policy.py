"""What a key's policy makes of the `validate` that a request brings."""

from pydantic import ValidationError

from schemas.chat import GateSpec
from services.errors import Forbidden, PlatformError


def read_policy(header: str | None) -> GateSpec | None:
    """The policy that the gateway hands on with a request of its key, as JSON.

    Raises `PlatformError` for one that cannot be read: it must not be taken for none.
    """
    if header is None:
        return None
    try:
        return GateSpec.model_validate_json(header)
    except ValidationError:
        raise PlatformError(
            "the validation policy of this key cannot be read", code="policy_unreadable"
        ) from None


def with_policy(asked: GateSpec | None, policy: GateSpec | None) -> GateSpec | None:
    """What holds for one answer. A request may say more than its key's policy, never less.

    It names the order or the recipient where the policy leaves that open, and may allow fewer verdicts.
    Raises `Forbidden` when it asks for another kind.
    """
    if policy is None or asked is None:
        return policy or asked
    if asked.kind != policy.kind:
        raise Forbidden(
            f"this key's answers are validated as {policy.kind!r}; `validate.kind` is {asked.kind!r}",
            code="validation_policy",
            param="validate.kind",
        )
    told = asked.model_fields_set
    return GateSpec(
        kind=policy.kind,
        context={**asked.context, **policy.context},
        attempts_max=asked.attempts_max if "attempts_max" in told else policy.attempts_max,
        allow=[name for name in policy.allow if name in asked.allow or "allow" not in told],
    )
