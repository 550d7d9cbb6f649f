"""Finds links in a text and says which of them may not be there, by host and registered domain."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal
from urllib.parse import unquote

from tldextract import TLDExtract

from validators.engine.view import Span, View

Sites = Mapping[str, Sequence[str]]
"""Hosts, each with what the path of a link to it begins with; an empty text allows any."""

Reason = Literal[
    "user_info", "ip_address", "punycode", "shortener", "not_listed", "no_allowlist", "no_domain"
]

LISTS_CACHED_MAX: Final = 256
HOST_CHARS_MAX: Final = 253

_TAIL: Final = r"(?:[/?#:][^\s<>\"]{0,2000})?"
_LABEL: Final = r"[a-z0-9](?:[a-z0-9_-]{0,62})"
WITH_SCHEME: Final = re.compile(
    r"(?<![a-z0-9])[a-z][a-z0-9+.-]{1,15}:[/\\]{2}[^\s<>\"]{1,2000}", re.IGNORECASE
)
WITH_WWW: Final = re.compile(rf"(?<![\w@./-])www\.[^\s<>\"/?#]{{1,253}}{_TAIL}", re.IGNORECASE)
BARE: Final = re.compile(
    rf"(?<![\w@./:-])(?:{_LABEL}\.){{1,6}}(?P<top>[a-z][a-z0-9-]{{1,62}})(?![\w@-])(?!\.\w)(?P<tail>[/?#:][^\s<>\"]{{0,2000}})?",
    re.IGNORECASE,
)
BARE_IP: Final = re.compile(r"(?<![\w.@/-])\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?/[^\s<>\"]{0,2000}")
WITH_USER: Final = re.compile(
    rf"(?<![\w@./-])[a-z0-9._%+-]{{1,64}}@(?:{_LABEL}\.){{1,6}}[a-z]{{2,63}}(?::\d{{1,5}})?/[^\s<>\"]{{1,2000}}",
    re.IGNORECASE,
)
TRAILING: Final = ".,;:!?)]}'\"*_~"
HOST: Final = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63}){1,20}")
SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]{1,15}:[/\\]{2,8}", re.IGNORECASE)
AUTHORITY_END: Final = re.compile(r"[/?#\\]")
PORT: Final = re.compile(r":\d{0,5}$")
NUMBER: Final = re.compile(r"(?:0x[0-9a-f]{0,16}|\d{1,20})")

_suffixes = TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=True)


@dataclass(frozen=True, slots=True)
class Link:
    """A link in a text. `raw` is as written, `seen` as it is read."""

    span: Span
    raw: str
    seen: str


class LinkRules:
    """Which links a text may hold."""

    def __init__(
        self, *, allowlist: Sequence[str], shorteners: Sequence[str], bare_suffixes: Sequence[str]
    ) -> None:
        self._own = sites(allowlist) if allowlist else None
        self._shorteners = frozenset(name.lower() for name in shorteners)
        self._bare_suffixes = frozenset(suffix.lower() for suffix in bare_suffixes)
        self._sites = lru_cache(maxsize=LISTS_CACHED_MAX)(sites)
        registered_domain("example.com")  # the list of suffixes is read now, not under the first request

    def wrong(self, view: View, allowlist: Sequence[str] | None) -> Iterator[tuple[Link, Reason, str | None]]:
        """Links that may not stand there, why, and their registered domain where they have one."""
        listed = self._own if allowlist is None else self._sites(tuple(allowlist))
        for link in self._links(view):
            host, path = address(link.seen)
            if (reason := self._fault(link, host, path, listed)) is not None:
                yield link, reason, registered_domain(host)

    def _links(self, view: View) -> Iterator[Link]:
        text = view.text
        if "." not in text and ":" not in text:
            return
        last = 0
        for start, end in sorted(self._spans(text), key=lambda span: (span[0], -span[1])):
            if start < last:
                continue
            last = start + len(text[start:end].rstrip(TRAILING))
            span = view.span(start, last)
            yield Link(span, view.raw[span[0] : span[1]], text[start:last])

    def _spans(self, text: str) -> Iterator[Span]:
        for shape in (WITH_SCHEME, WITH_WWW, BARE_IP, WITH_USER):
            for match in shape.finditer(text):
                yield match.span()
        for match in BARE.finditer(text):
            if self._is_link(match):
                yield match.span()

    def _is_link(self, match: re.Match[str]) -> bool:
        """A name without a scheme: by a suffix that is no word, or by a path below any public suffix."""
        tail = match["tail"] or ""
        if match["top"].lower() in self._bare_suffixes:
            return True
        return tail.startswith(("/", "?")) and registered_domain(address(match[0])[0]) is not None

    def _fault(self, link: Link, host: str, path: str, listed: Sites | None) -> Reason | None:
        reason = self._deception(link, host, listed)
        if reason is not None or listed is None:
            return reason or "no_allowlist"
        labels = host.split(".")
        starts = (listed.get(".".join(labels[at:]), ()) for at in range(len(labels)))
        return None if any(_below(path, start) for one in starts for start in one) else "not_listed"

    def _deception(self, link: Link, host: str, listed: Sites | None) -> Reason | None:
        """Forms that hide where a link leads; no list makes up for them, save a list of that very name."""
        if "@" in host:
            return "user_info"
        if host.startswith("[") or all(NUMBER.fullmatch(label) for label in host.split(".")):
            return "ip_address"
        if not HOST.fullmatch(host) or len(host) > HOST_CHARS_MAX:
            return "no_domain"
        if not (link.raw.isascii() or address(link.raw)[0].isascii()):
            return "punycode"
        if any(label.startswith("xn--") for label in host.split(".")) and host not in (listed or ()):
            return "punycode"
        shortened = host.removeprefix("www.") in self._shorteners
        return "shortener" if shortened else None


def registered_domain(host: str) -> str | None:
    """`acme.co.uk` of `jobs.acme.co.uk`; None for a public suffix, or a name under none."""
    return _suffixes.extract_str(host).top_domain_under_public_suffix or None


def sites(listed: Iterable[str]) -> Sites:
    """An allow-list, whose entries are hosts or URLs, in the form in which links are compared with it.

    A public suffix such as `co.uk` or `github.io` lists nobody: all the world may register below it.
    """
    found: dict[str, list[str]] = {}
    for name in listed:
        host, path = address(name.strip().removeprefix("*."))
        host = host.removeprefix("www.")
        if host and (registered_domain(host) is not None or not _is_suffix(host)):
            found.setdefault(host, []).append(path.rstrip("/"))
    return found


def _is_suffix(host: str) -> bool:
    return _suffixes.extract_str(host).suffix == host


def address(url: str) -> tuple[str, str]:
    """A link's host, with any user part, and the path with all that follows.

    A backslash is a slash here, as in browsers.
    """
    rest = SCHEME.sub("", url, count=1)
    end = AUTHORITY_END.search(rest)
    authority = rest[: end.start()] if end else rest
    return PORT.sub("", authority).rstrip(".").lower(), rest[len(authority) :]


def _below(path: str, start: str) -> bool:
    if not start:
        return True
    climbs = ".." in unquote(path) or "\\" in path
    return not climbs and (path == start or path.startswith((f"{start}/", f"{start}?", f"{start}#")))
