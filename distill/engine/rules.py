"""The scorer's rules, read from a file with a version, and what they say of a piece of evidence."""

import hashlib
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, model_validator

from distill.engine.review.decisions import standing
from schemas.base import Model
from schemas.evidence import Category
from services.errors import PlatformError

SHIPPED: Final = Path(__file__).parent.parent / "scoring.toml"
SCORER_VERSION: Final = "2.0.0"
REFUSAL_REASONS: Final = ("refusal", "content_filter")
REFUSAL_CHARS: Final = 200

Json = Mapping[str, Any]
Scoring = tuple[Category, list[str]]
Words = str | list[str]
Vote = Literal["none", "positive", "negative", "mixed"]


class RulesInvalid(PlatformError):
    """The file of rules is not one."""

    code = "rules_invalid"


class Bound(Model):
    above: float | None = None
    below: float | None = None

    def holds(self, value: float | None) -> bool:
        if value is None:
            return False
        return (self.above is None or value > self.above) and (self.below is None or value < self.below)


class When(Model):
    """Conditions, all of which have to hold. The file tells what each means."""

    output: Words | None = None
    review: Words | None = None
    verdict: Words | None = None
    votes: Words | None = None
    run_votes: Words | None = None
    repair: Words | None = None
    finish: Words | None = None
    corrected: bool | None = None
    output_chars: Bound | None = None
    prompt_tokens: Bound | None = None
    completion_tokens: Bound | None = None
    cost_usd: Bound | None = None


class Rule(Model):
    when: When
    category: Category | Literal["verdict"]
    reasons: tuple[str, ...] = ()
    codes: bool = True


class RuleFile(Model):
    version: Annotated[str, Field(min_length=1, max_length=64)]
    refusals: tuple[str, ...] = ()
    rule: Annotated[list[Rule], Field(min_length=1)]

    @model_validator(mode="after")
    def _answers_everything(self) -> "RuleFile":
        if self.rule[-1].when.model_fields_set:
            raise ValueError("the last rule must have no conditions, so that one always holds")
        return self


@dataclass(frozen=True, slots=True)
class _Compiled:
    tests: tuple[tuple[str, Callable[[Any], bool]], ...]
    category: Category | Literal["verdict"]
    reasons: tuple[str, ...]
    codes: bool


def read(path: Path) -> bytes:
    """The content of a file of rules. Raises `RulesInvalid`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise RulesInvalid(f"the rules of the scorer, {path}, cannot be read: {error.strerror}") from None


class Rules:
    """Rules that were read. `score` is a pure function of the evidence."""

    def __init__(self, content: bytes) -> None:
        try:
            file = RuleFile.model_validate(tomllib.loads(content.decode()))
        except (ValidationError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RulesInvalid(f"the rules of the scorer cannot be read: {error}") from None
        self.version = file.version
        self.sha256 = hashlib.sha256(content + SCORER_VERSION.encode()).hexdigest()
        self._refusals = tuple(text.lower() for text in file.refusals)
        self._rules = [_compiled(rule) for rule in file.rule]

    def score(self, evidence: Json) -> Scoring:
        """The category, and the codes of the reasons, each once. `evidence` is a `stillhouse.evidence`."""
        facts = _Facts(evidence, self._refusals)
        rule = next(rule for rule in self._rules if all(holds(facts.get(name)) for name, holds in rule.tests))
        verdict = evidence.get("verdict")
        said: Category = verdict["verdict"] if verdict else "needs_human_review"
        category = said if rule.category == "verdict" else rule.category
        codes = _verdict_codes(verdict) if rule.codes else []
        return category, list(dict.fromkeys([*codes, *rule.reasons]))


def _compiled(rule: Rule) -> _Compiled:
    tests = tuple((name, _test(getattr(rule.when, name))) for name in rule.when.model_fields_set)
    return _Compiled(tests, rule.category, rule.reasons, rule.codes)


def _test(condition: Words | bool | Bound) -> Callable[[Any], bool]:
    if isinstance(condition, Bound):
        return condition.holds
    values = frozenset(condition if isinstance(condition, list) else [condition])
    return values.__contains__


class _Facts:
    """What conditions look at, each worked out when a rule first asks for it."""

    def __init__(self, evidence: Json, refusals: tuple[str, ...]) -> None:
        self._evidence = evidence
        self._refusals = refusals
        self._known: dict[str, Any] = {}

    def get(self, name: str) -> Any:
        if name not in self._known:
            self._known[name] = getattr(self, f"_{name}")()
        return self._known[name]

    def _output(self) -> str:
        output = self._evidence.get("output")
        if output is None:
            return "none"
        text = (output.get("content") or "").strip()
        if output.get("finish_reason") in REFUSAL_REASONS:
            return "refusal"
        if not text:
            return "given" if output.get("tool_calls") else "empty"
        return "refusal" if text[:REFUSAL_CHARS].lower().startswith(self._refusals) else "given"

    def _finish(self) -> str | None:
        reason: str | None = (self._evidence.get("output") or {}).get("finish_reason")
        return reason

    def _output_chars(self) -> int:
        return len((self._evidence.get("output") or {}).get("content") or "")

    def _review(self) -> str:
        return standing(self._evidence.get("review") or ())

    def _verdict(self) -> str:
        verdict = self._evidence.get("verdict")
        return verdict["verdict"] if verdict else "none"

    def _votes(self) -> Vote:
        return votes_of(self._feedback())

    def _run_votes(self) -> Vote:
        return votes_of(one for one in self._feedback() if one["scope"] == "run")

    def _corrected(self) -> bool:
        return any(one["kind"] == "demonstration" for one in self._feedback())

    def _feedback(self) -> Sequence[Json]:
        return self._evidence.get("feedback") or ()

    def _repair(self) -> str:
        repairs = self._evidence.get("repair_of") is not None
        repaired = self._evidence.get("repaired_by") is not None
        if repairs and repaired:
            return "both"
        return "repairs" if repairs else "repaired" if repaired else "none"

    def _prompt_tokens(self) -> float | None:
        return self._used("prompt_tokens")

    def _completion_tokens(self) -> float | None:
        return self._used("completion_tokens")

    def _cost_usd(self) -> float | None:
        return self._used("cost_usd")

    def _used(self, name: str) -> float | None:
        amount: float | None = (self._evidence.get("usage") or {}).get(name)
        return amount


def _verdict_codes(verdict: Json | None) -> list[str]:
    if verdict is None:
        return ["verdict.none"]
    serious = [one["code"] for one in verdict["findings"] if one["severity"] in ("error", "review")]
    return [f"verdict.{verdict['verdict']}", *serious]


def votes_of(feedback: Iterable[Json]) -> Vote:
    """What people say by yes or no, each one's latest word on each thing that was asked."""
    latest = {
        (one["by"], one["name"], one["scope"]): one["value"]
        for one in sorted(feedback, key=lambda one: (one["ts"], one["feedback_id"]))
        if one["kind"] == "boolean"
    }
    values = {value for value in latest.values() if isinstance(value, bool)}
    if not values:
        return "none"
    return "mixed" if len(values) == 2 else "positive" if True in values else "negative"
