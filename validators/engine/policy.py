"""The rule set as data: read from TOML, checked, and brought to the form in which rules use it."""

import hashlib
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, ValidationError

from schemas.base import Model
from schemas.verdicts import Severity
from validators.engine.codes import CODES
from validators.engine.text import fold
from validators.engine.wording import BrokenPattern, Expression

HASH_CHARS: Final = 12
MIN_PLURAL: Final = 4


class BrokenPolicy(ValueError):
    """The policy file cannot be used; the message says where and why."""


WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]


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


class FillPolicy(Model):
    """Rules of the house beside those of each order; 0 turns a limit off."""

    travel_minutes: Annotated[int, Field(ge=0, le=24 * 60)]
    week_hours_max: Annotated[float, Field(ge=0, le=168)]
    week_begins: Weekday
    age_min_by_role: dict[str, Annotated[int, Field(ge=0, le=150)]]


class EmailPolicy(Model):
    public_mail_domains: list[str]


class SmsPolicy(Model):
    """Units are septets in GSM-7 and UTF-16 units in UCS-2."""

    region: Annotated[str, Field(pattern="^[A-Z]{2}$")]
    gsm_units_single: Annotated[int, Field(ge=2)]
    gsm_units_multi: Annotated[int, Field(ge=2)]
    ucs2_units_single: Annotated[int, Field(ge=2)]
    ucs2_units_multi: Annotated[int, Field(ge=2)]
    opt_out_wording: Annotated[list[str], Field(min_length=1)]
    opt_out_suggestion: str
    sender_names: list[str]


class PayDisclosurePolicy(Model):
    worker: list[str]
    client: list[str]
    any: list[str]


class ContentPolicy(Model):
    """Expressions are RE2's."""

    placeholders: list[str]
    placeholder_exceptions: list[str]
    discriminatory_explicit: list[str]
    discriminatory_explicit_patterns: list[str]
    discriminatory_possible: list[str]
    discriminatory_possible_patterns: list[str]
    url_allowlist: list[str]
    url_shorteners: list[str]
    url_suffixes: Annotated[list[str], Field(min_length=1)]
    pay_disclosure: PayDisclosurePolicy


class PolicyFile(Model):
    """The tables of a policy file."""

    version: Annotated[str, Field(pattern=r"^[0-9A-Za-z._-]{1,32}$")]
    severities: dict[str, Severity]
    roles: dict[str, list[str]]
    cities: CityPolicy
    states: dict[str, StatePolicy]
    site_zones: dict[str, list[str]]
    fill: FillPolicy
    names: NamePolicy
    greetings: GreetingPolicy
    email: EmailPolicy
    sms: SmsPolicy
    content: ContentPolicy


class Policy:
    """A checked rule set. `version` names the file's own version and its bytes.

    Raises `BrokenPolicy` for bytes that are no policy, or an incomplete one.
    """

    def __init__(self, data: bytes, others: Mapping[str, Severity] | None = None) -> None:
        """`others` are the codes of third parties with their own severities, which the file may change."""
        others = others or {}
        self.file = _parse(data, others.keys())
        self.version = f"{self.file.version}+{hashlib.sha256(data).hexdigest()[:HASH_CHARS]}"
        self.severities: Mapping[str, Severity] = {**others, **self.file.severities}
        self.nicknames = _nicknames(self.file.names.nicknames)
        self.first_weekday = WEEKDAYS.index(self.file.fill.week_begins)
        self._roles = _synonyms("roles", self.file.roles, _singular)
        self._city_words = {fold(short): fold(long) for short, long in self.file.cities.words.items()}
        self._cities = _synonyms("cities.synonyms", self.file.cities.synonyms)
        self._states = {fold(state.name): code for code, state in self.file.states.items()}
        self._state_zones = _state_zones(self.file.states)
        self._site_zones = self._read_site_zones()
        # Orders and rosters repeat a few thousand spellings: each is brought to its form once.
        self.role = lru_cache(maxsize=4096)(self._role)
        self.city = lru_cache(maxsize=16384)(self._city)
        self.state = lru_cache(maxsize=1024)(self._state)
        self.age_min_by_role = {self.role(role): age for role, age in self.file.fill.age_min_by_role.items()}

    def _role(self, text: str) -> str:
        """The one name of a job role, whichever of its names was written."""
        folded = _singular(fold(text.replace("&", " and ")))
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

    def zones(self, city: str, state: str) -> tuple[ZoneInfo, ...]:
        """The zones that a site may keep, the likeliest first; none for a state that is not in the table.

        A city of the table keeps its one zone; any other may keep each zone of its state.
        """
        code = self.state(state)
        if (zone := self._site_zones.get(f"{self.city(city)}, {code}")) is not None:
            return (zone,)
        return self._state_zones.get(code, ())

    def _read_site_zones(self) -> dict[str, ZoneInfo]:
        """Zones of single cities. Each is one that its state may keep from then on."""
        found: dict[str, ZoneInfo] = {}
        for name, places in self.file.site_zones.items():
            zone = _zone("site_zones", name)
            for place in places:
                city, _, state = place.rpartition(",")
                code = self._state(state)
                if not city or code not in self._state_zones:
                    raise BrokenPolicy(f"the policy's `site_zones` has {place!r}; write `City, ST`")
                found[f"{self._city(city)}, {code}"] = zone
                if zone not in self._state_zones[code]:
                    self._state_zones[code] += (zone,)
        return found


def _parse(data: bytes, others: Collection[str]) -> PolicyFile:
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
    if unknown := sorted(policy.severities.keys() - CODES.keys() - set(others)):
        raise BrokenPolicy(f"the policy's `severities` names codes that do not exist: {', '.join(unknown)}")
    _check_expressions(policy.content)
    return policy


def _check_expressions(content: ContentPolicy) -> None:
    lists = {
        "placeholders": content.placeholders,
        "discriminatory_explicit_patterns": content.discriminatory_explicit_patterns,
        "discriminatory_possible_patterns": content.discriminatory_possible_patterns,
    }
    for name, patterns in lists.items():
        try:
            Expression(patterns)
        except BrokenPattern as error:
            raise BrokenPolicy(f"the policy's `content.{name}` {error}") from error


def _synonyms(
    table: str, groups: Mapping[str, Iterable[str]], form: Callable[[str], str] = str
) -> dict[str, str]:
    canonical: dict[str, str] = {}
    for name, others in groups.items():
        for other in (name, *others):
            known = canonical.setdefault(form(fold(other)), form(fold(name)))
            if known != form(fold(name)):
                raise BrokenPolicy(f"the policy's `{table}` lists {other!r} under {known!r} and {name!r}")
    return canonical


def _nicknames(groups: Mapping[str, Iterable[str]]) -> dict[str, frozenset[str]]:
    """For each name, formal or short, the formal names that it can stand for."""
    formal: dict[str, set[str]] = {}
    for name, shorts in groups.items():
        for spelling in (name, *shorts):
            formal.setdefault(fold(spelling), set()).add(fold(name))
    return {name: frozenset(names) for name, names in formal.items()}


def _singular(role: str) -> str:
    """`forklift operators` is the role of a `forklift operator`."""
    return role[:-1] if len(role) > MIN_PLURAL and role.endswith("s") and role[-2] not in "siu" else role


def _state_zones(states: Mapping[str, StatePolicy]) -> dict[str, tuple[ZoneInfo, ...]]:
    return {code: (_zone(f"states.{code}.zone", state.zone),) for code, state in states.items()}


def _zone(where: str, name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise BrokenPolicy(f"the policy's `{where}` is unknown: {name!r}") from error
