"""E-mail addresses: whether they can be delivered to, and whether they are what they look like."""

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

LOCAL_CHARS_MAX: Final = 64
ADDRESS_CHARS_MAX: Final = 254

# Controls, line and paragraph separators, and the marks that turn the direction of text.
FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
DISPLAYED: Final = re.compile(r"[^<>]{0,200}<([^<>]{1,320})>\s{0,5}")
ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
LOCAL: Final = re.compile(rf"{ATOM}+(?:\.{ATOM}+)*")
LABEL: Final = re.compile(r"(?!-)[^\W_](?:[^\W_]|-){0,62}(?<!-)")
TOP: Final = re.compile(r"(?:[^\W\d_]{2,63}|xn--[a-z0-9-]{1,59})", re.IGNORECASE)

# Cyrillic and Greek letters that print as Latin ones.
LOOKALIKES: Final = frozenset(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0501\u051b\u051d\u04bb\u04cf\u0432\u043c\u043d"
    "\u043a\u0442\u0433\u044c\u0454\u0457\u03bf\u03b1\u03bd\u03c1\u03c4\u03c5\u03b9\u03ba\u03c7\u03b5\u03b7\u03c9"
)


@dataclass(frozen=True, slots=True)
class Address:
    """An address without its display name."""

    local: str
    domain: str

    @classmethod
    def parse(cls, text: str) -> "Address | None":
        """Read `a@b.c` or `Name <a@b.c>`; None where there is no single address with both parts."""
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
        labels = self.domain.split(".")
        return (
            LOCAL.fullmatch(self.local) is not None
            and len(labels) > 1
            and all(LABEL.fullmatch(label) for label in labels)
            and TOP.fullmatch(labels[-1]) is not None
        )

    @property
    def deceptive(self) -> bool:
        """Whether letters pass for others: scripts mixed in one word, or a word all of lookalikes."""
        words = [self.local, *map(_decoded, self.domain.split("."))]
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
    letters = [char for char in word.casefold() if char.isalpha()]
    scripts = {unicodedata.name(char, "?").split()[0] for char in letters}
    if "LATIN" in scripts and scripts & {"CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE"}:
        return True
    return bool(letters) and all(char in LOOKALIKES for char in letters)
