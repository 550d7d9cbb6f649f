"""The rule set as data: read from TOML, checked, and brought to the form in which rules use it."""

import hashlib
import re
import tomllib
import zoneinfo
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Final

from pydantic import Field, ValidationError

from schemas.base import Model
from schemas.verdicts import Severity
from validators.engine.codes import CODES
from validators.engine.text import fold

HASH_CHARS: Final = 12


class BrokenPolicy(ValueError):
    """The policy file cannot be used; the message says where and why."""


class StatePolicy(Model):
    name: str
    zone: str


class CityPolicy(Model):
    words: dict[str, str]
    synonyms: dict[str, list[str]]


class NamePolicy(Model):
    nicknames: dict[str, list[str]]


class GreetingPolicy(Model):
    openers: Annotated[list[str], Field(min_length=1)]
    not_names: list[str]


class SmsPolicy(Model):
    """Units are septets in GSM-7 and UTF-16 units in UCS-2."""

    region: Annotated[str, Field(pattern="^[A-Z]{2}$")]
    gsm_units_single: Annotated[int, Field(ge=2)]
    gsm_units_multi: Annotated[int, Field(ge=2)]
    ucs2_units_single: Annotated[int, Field(ge=2)]
    ucs2_units_multi: Annotated[int, Field(ge=2)]
    opt_out_wording: Annotated[list[str], Field(min_length=1)]
    opt_out_suggestion: str


class PayDisclosurePolicy(Model):
    worker: list[str]
    client: list[str]
    any: list[str]


class ContentPolicy(Model):
    placeholders: list[str]
    discriminatory_explicit: list[str]
    discriminatory_possible: list[str]
    url_allowlist: list[str]
    url_suffixes: Annotated[list[str], Field(min_length=1)]
    pay_disclosure: PayDisclosurePolicy


class PolicyFile(Model):
    """The tables of a policy file."""

    version: Annotated[str, Field(pattern=r"^[0-9A-Za-z._-]{1,32}$")]
    severities: dict[str, Severity]
    roles: dict[str, list[str]]
    cities: CityPolicy
    states: dict[str, StatePolicy]
    names: NamePolicy
    greetings: GreetingPolicy
    sms: SmsPolicy
    content: ContentPolicy


class Policy:
    """A checked rule set. `version` names the file's own version and its bytes.

    Raises `BrokenPolicy` for bytes that are no policy, or an incomplete one.
    """

    def __init__(self, data: bytes) -> None:
        self.file = _parse(data)
        self.version = f"{self.file.version}+{hashlib.sha256(data).hexdigest()[:HASH_CHARS]}"
        self.severities: Mapping[str, Severity] = self.file.severities
        self.nicknames = _nicknames(self.file.names.nicknames)
        self.zones = _zones(self.file.states)
        self._roles = _synonyms("roles", self.file.roles)
        self._city_words = {fold(short): fold(long) for short, long in self.file.cities.words.items()}
        self._cities = _synonyms("cities.synonyms", self.file.cities.synonyms)
        self._states = {fold(state.name): code for code, state in self.file.states.items()}
        # Orders and rosters repeat a few thousand spellings: each is brought to its form once.
        self.role = lru_cache(maxsize=4096)(self._role)
        self.city = lru_cache(maxsize=16384)(self._city)
        self.state = lru_cache(maxsize=1024)(self._state)

    def _role(self, text: str) -> str:
        """The one name of a job role, whichever of its names was written."""
        folded = fold(text.replace("&", " and "))
        return self._roles.get(folded, folded)

    def _city(self, text: str) -> str:
        parts = [self._city_words.get(word, word) for word in fold(text).split()]
        return self._cities.get(joined := " ".join(parts), joined)

    def _state(self, text: str) -> str:
        """A state's code, from its code or its name; what is neither is only folded."""
        folded = fold(text)
        joined = folded.replace(" ", "").upper()
        return joined if joined in self.file.states else self._states.get(folded, folded)

    def place(self, city: str, state: str) -> str:
        return f"{self.city(city)}, {self.state(state)}"


def _parse(data: bytes) -> PolicyFile:
    try:
        policy = PolicyFile.model_validate(tomllib.loads(data.decode()))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BrokenPolicy(f"the policy is not valid TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BrokenPolicy(f"the policy's `{where}`: {first['msg']}") from error
    if absent := sorted(CODES.keys() - policy.severities.keys()):
        raise BrokenPolicy(f"the policy's `severities` lacks {', '.join(absent)}")
    if unknown := sorted(policy.severities.keys() - CODES.keys()):
        raise BrokenPolicy(f"the policy's `severities` names codes that do not exist: {', '.join(unknown)}")
    for pattern in policy.content.placeholders:
        _check_pattern(pattern)
    return policy


def _check_pattern(pattern: str) -> None:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise BrokenPolicy(
            f"the policy's `content.placeholders` has a broken pattern {pattern!r}: {error}"
        ) from error
    if compiled.search(""):
        raise BrokenPolicy(
            f"the policy's `content.placeholders` has a pattern that fits nothing: {pattern!r}"
        )


def _synonyms(table: str, groups: Mapping[str, Iterable[str]]) -> dict[str, str]:
    canonical: dict[str, str] = {}
    for name, others in groups.items():
        for other in (name, *others):
            known = canonical.setdefault(fold(other), fold(name))
            if known != fold(name):
                raise BrokenPolicy(f"the policy's `{table}` lists {other!r} under {known!r} and {name!r}")
    return canonical


def _nicknames(groups: Mapping[str, Iterable[str]]) -> dict[str, frozenset[str]]:
    """For each name, formal or short, the formal names that it can stand for."""
    formal: dict[str, set[str]] = {}
    for name, shorts in groups.items():
        for spelling in (name, *shorts):
            formal.setdefault(fold(spelling), set()).add(fold(name))
    return {name: frozenset(names) for name, names in formal.items()}


def _zones(states: Mapping[str, StatePolicy]) -> dict[str, zoneinfo.ZoneInfo]:
    zones: dict[str, zoneinfo.ZoneInfo] = {}
    for code, state in states.items():
        try:
            zones[code] = zoneinfo.ZoneInfo(state.zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
            raise BrokenPolicy(f"the policy's `states.{code}.zone` is unknown: {state.zone!r}") from error
    return zones
