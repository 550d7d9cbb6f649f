"""E-mail addresses: whether they can be delivered to, and whether they are what they look like."""

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from email_validator import EmailNotValidError, validate_email

from validators.engine.view import LOOKALIKES

LOCAL_CHARS_MAX: Final = 64
ADDRESS_CHARS_MAX: Final = 254
TEXT_CHARS_MAX: Final = 1000
"""With its display name. Longer texts are not looked into."""

# Controls, line and paragraph separators, and the marks that turn the direction of text.
FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
DISPLAYED: Final = re.compile(r"[^<>]{0,600}<([^<>]{1,320})>\s{0,5}")
ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
LOCAL: Final = re.compile(rf"{ATOM}+(?:\.{ATOM}+)*")
LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
PLAIN_DOMAIN: Final = re.compile(rf"(?:{LABEL}\.){{1,10}}[A-Za-z]{{2,63}}")
"""Domains of which nothing is to be found out: no other letters, no labels of punycode's form."""
TOP: Final = re.compile(r"(?:[^\W\d_]{2,63}|xn--[a-z0-9-]{1,59})", re.IGNORECASE)
SIMILAR_SCRIPTS: Final = frozenset({"CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE"})
IMITATING: Final = frozenset(
    char
    for char in LOOKALIKES
    if char.isalpha() and unicodedata.name(char, "?").split()[0] in SIMILAR_SCRIPTS
)
PHONETIC: Final = re.compile("[\u0250-\u02af\u1d00-\u1dbf\ua730-\ua731]")
"""Letters of phonetic alphabets, small capitals among them: no name is written in them."""
RESERVED: Final = frozenset({"localhost", "local", "invalid", "onion", "arpa"})


@dataclass(frozen=True, slots=True)
class Address:
    """An address without its display name."""

    local: str
    domain: str

    @classmethod
    def parse(cls, text: str) -> "Address | None":
        """Read `a@b.c` or `Name <a@b.c>`; None where there is no single address with both parts."""
        if len(text) > TEXT_CHARS_MAX:
            return None
        shown = DISPLAYED.fullmatch(text.strip())
        bare = shown[1].strip() if shown else text.strip()
        local, at, domain = bare.rpartition("@")
        return cls(local, domain) if at and local and domain else None

    def same_as(self, other: "Address | None") -> bool:
        """Case counts in neither part: no mail system of note tells `Bob@` from `bob@`."""
        return other is not None and self.folded == other.folded

    @property
    def folded(self) -> str:
        return f"{self.local}@{self.domain}".casefold()

    @property
    def deliverable(self) -> bool:
        """Whether the syntax is that of a mailbox on the internet: no quoted, no literal, no bare host."""
        if len(self.local) > LOCAL_CHARS_MAX or len(self.local) + 1 + len(self.domain) > ADDRESS_CHARS_MAX:
            return False
        top = self.domain.rpartition(".")[2]
        if LOCAL.fullmatch(self.local) is None or top.lower() in RESERVED:
            return False
        if PLAIN_DOMAIN.fullmatch(self.domain) is not None and "--" not in self.domain:
            return True
        return "." in self.domain and TOP.fullmatch(top) is not None and self._valid()

    def _valid(self) -> bool:
        """What the library says of domains in other letters and of punycode. It asks no name server here."""
        try:
            validate_email(
                f"a@{self.domain}",
                allow_smtputf8=False,
                check_deliverability=False,
                globally_deliverable=False,
                test_environment=True,
            )
        except EmailNotValidError:
            return False
        return True

    @property
    def deceptive(self) -> bool:
        """Whether letters pass for others: scripts mixed in one word, or a word all of lookalikes."""
        if self.local.isascii() and self.domain.isascii() and "--" not in self.domain:
            return False
        if len(self.local) + len(self.domain) > ADDRESS_CHARS_MAX:
            return False  # nobody takes it for an address; bringing runs of marks into order is not linear
        words = [self.local, *map(_decoded, re.split("[.\u3002\uff0e\uff61]", self.domain))]
        return any(_deceptive(word) for word in words)


def _decoded(label: str) -> str:
    if not label.lower().startswith("xn--"):
        return label
    try:
        return label[4:].encode("ascii").decode("punycode")
    except UnicodeError:
        return label


def _deceptive(word: str) -> bool:
    if word.isascii():
        return False
    if unicodedata.normalize("NFKC", word) != unicodedata.normalize("NFC", word):
        return True  # full-width letters and the like
    composed = unicodedata.normalize("NFC", word).casefold()
    letters = [char for char in composed if char.isalpha()]
    scripts = {unicodedata.name(char, "?").split()[0] for char in letters}
    if "LATIN" in scripts and (scripts & SIMILAR_SCRIPTS or PHONETIC.search(composed)):
        return True
    # What does not print, or sits on a letter without being one with it.
    marked = any(unicodedata.category(char) in ("Mn", "Me") for char in composed) and "LATIN" in scripts
    hidden = any(unicodedata.category(char) == "Cf" for char in composed)
    return marked or hidden or (bool(letters) and all(char in IMITATING for char in letters))
