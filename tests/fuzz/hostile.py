"""Requests that try to make a validator crash or hang: by size, depth, and what regular expressions fear."""

import json
import random
from collections.abc import Callable
from typing import Any

import orjson

Json = dict[str, Any]
BYTES_MAX = 64 * 1024
ORDER: Json = {
    "order_id": "O-1",
    "client_id": "C-1",
    "role": "Forklift Operator",
    "city": "Columbus",
    "state": "OH",
    "count": 3,
    "start": "2026-11-02T22:00:00-05:00",
    "end": "2026-11-03T06:00:00-05:00",
    "required_certs": ["OSHA-10"],
    "age_min": 18,
}
WHOM = {"worker_id": "W-00001"}

TOKENS = (
    *(
        "[",
        "]",
        "{{",
        "}}",
        "{",
        "${",
        "<%",
        "%>",
        "<",
        ">",
        "[A",
        "[a ",
        "<A",
        "{a",
        "%(",
        "%s",
        "__",
        "_",
        "X",
    ),
    *(
        "[your ",
        "<insert ",
        "#{",
        "*|",
        "@@",
        "$A",
        "lorem ",
        "TBD ",
        "....@",
        "a.",
        ".a",
        "@",
        "a@b.",
        "-.",
        "a-",
    ),
    *(
        "http://",
        "https://a",
        "//",
        "www.",
        "a.com/",
        "%2e",
        "\\",
        "xn--",
        ":80",
        "[::",
        "0x7f.",
        "1.1.1.1",
        "bit.ly",
    ),
    *(
        "1",
        "12 ",
        "123-",
        "123-45-6789 ",
        "4111 ",
        "4111-",
        "4111111111111111",
        "1 1-",
        "ssn ",
        "SSN 123456789 ",
    ),
    *("routing ", "account number ", "acct # ", "acct 1", "DE89 ", "DE89370400440532013000", "AB12", "iban "),
    *(
        "$1 ",
        "bill rate ",
        "bill rate $1 ",
        "markup ",
        "mark up",
        "% ",
        "we bill ",
        "young ",
        "no ",
        "men only ",
    ),
    *(
        "males   ",
        "young\n",
        "Hi ",
        "Hi A",
        "Hi A. ",
        "Dear Mr. ",
        "dear ",
        "Hello A'",
        "A-",
        ", ",
        "stop ",
        "reply stop",
    ),
    *(
        "€",
        "😀",
        "’",
        "\u0301",
        "\u0315\u0300",
        "\ufdfa",
        "\u200b",
        "\u202e",
        "\u00ad",
        "\uff11",
        "\u0130",
        "ß",
        "é",
    ),
    *(
        "\r\n",
        "\n",
        "\t",
        " ",
        "\x00",
        "\x0b",
        "\u2028",
        "a",
        "aA",
        "'",
        '"',
        "~1",
        "/",
        "+1614",
        "(614) ",
        "x5",
        ";",
    ),
    *("\ud7ff", "\U000e0041", "\u0627", "中", "ﬁ", "Å", "\u1e9b\u0323", "\u3131", "각"),
)
PATTERNS = (
    *("^(a+)+$", "(a|a)*b", "(a*)*$", "^(([a-z])+.)+[A-Z]([a-z])+$", "(x+x+)+y", "(.*a){25}", "a{1,1000}"),
    *(
        "(a{1,100}){1,100}",
        "((a{1,50}){1,50}){1,50}",
        "(?:a?){60}a{60}",
        "[a-z]*[a-z]*[a-z]*!",
        "(",
        "(?=a)",
        "\\1",
    ),
    *("\\p{L}+$", "^(\\w+\\s?)*$", "(?i)(straße|STRASSE)*", "[^\\x00-\\x7f]+$", "$^", "(?<n>a)\\k<n>"),
)


def encoded(value: Any) -> bytes:
    """JSON of any depth: orjson stops at 254."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def filled(token: str, size: int) -> str:
    """The token, again and again, in about `size` bytes of JSON."""
    each = max(1, len(orjson.dumps(token)) - 2)
    return token * max(1, size // each)


def nested(depth: int, leaf: Any, key: str | None) -> Any:
    for _ in range(depth):
        leaf = {key: leaf} if key is not None else [leaf]
    return leaf


def text(rng: random.Random, most: int = 62_000) -> str:
    """Hostile text: one token repeated, or many stirred together, in no more than about `most` bytes."""
    size = min(most, rng.choice((50, 500, 5_000, 30_000, 62_000)))
    if rng.random() < 0.5:
        token = "".join(rng.choice(TOKENS) for _ in range(rng.choice((1, 1, 2, 3))))
        return rng.choice(("", "Hi Bob, ", "a")) + filled(token, size) + rng.choice(("", "!", "\n", "@"))
    stirred = "".join(token * rng.choice((1, 1, 1, 2, 9)) for token in rng.choices(TOKENS, k=60))
    return filled(stirred, size)[: max(1, size)]


def anything(rng: random.Random, depth: int = 4) -> Any:
    """Any JSON value."""
    if depth and rng.random() < 0.5:
        count = rng.choice((0, 1, 2, 5, 40 if depth > 2 else 3))
        if rng.random() < 0.5:
            return [anything(rng, depth - 1) for _ in range(count)]
        return {short(rng): anything(rng, depth - 1) for _ in range(count)}
    return rng.choice((None, True, 0, -1, 2**53 - 1, 1e308, -0.0, 5e-324, "", short(rng), text(rng, 200)))


def short(rng: random.Random) -> str:
    return "".join(rng.choice(TOKENS) for _ in range(rng.randrange(4)))


def maybe(rng: random.Random, usual: Any) -> Any:
    """The usual value, mostly."""
    return usual if rng.random() < 0.9 else rng.choice((anything(rng), text(rng)))


def fill(rng: random.Random) -> Json:
    count = rng.choice((0, 1, 3, 50, 400, 1_500))
    draw = rng.choice((_known, _unknown, _mixed))
    fills = [draw(rng) for _ in range(count)]
    if rng.random() < 0.3 and fills:
        fills[0] = {"worker_id": text(rng, 30_000), "name": text(rng, 20_000)}
    order = ORDER | {"count": rng.choice((1, 3, count or 1, 2**53 - 1))}
    if rng.random() < 0.3:
        key = rng.choice(list(order))
        order[key] = rng.choice(
            (anything(rng), text(rng), "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00")
        )
    artifact: Any = maybe(rng, {"order_id": maybe(rng, "O-1"), "fills": maybe(rng, fills)})
    return {"kind": "fill", "artifact": artifact, "context": {"order": order}}


def _known(rng: random.Random) -> Json:
    return {"worker_id": f"W-{rng.randrange(3_000):05d}"}


def _unknown(rng: random.Random) -> Json:
    return {"worker_id": f"X-{rng.randrange(99_999)}", "name": f"Worker{rng.randrange(999)} Young"}


def _mixed(rng: random.Random) -> Json:
    return maybe(rng, {"worker_id": maybe(rng, f"W-{rng.randrange(3_000):05d}"), "name": short(rng)})  # type: ignore[no-any-return] # or anything


def email(rng: random.Random) -> Json:
    draft: Json = {"to": ["w1@example.com"], "subject": "Shift", "body": "Hi Bob, see you."}
    key = rng.choice(("to", "cc", "from", "subject", "body", "headers"))
    hostile = text(rng)
    draft[key] = {
        "to": [hostile] if rng.random() < 0.7 else [hostile[:20]] * 500,
        "cc": [short(rng) + "@gmail.com" for _ in range(300)],
        "headers": {hostile[:30_000]: hostile[:20_000]}
        if rng.random() < 0.5
        else {f"X-{n}": "a" for n in range(2_000)},
    }.get(key, hostile)
    return {"kind": "email", "artifact": maybe(rng, draft), "context": _message_context(rng)}


def sms(rng: random.Random) -> Json:
    draft = {"to": "+16142000001", "body": "Hi Bob, see you."}
    draft[rng.choice(("to", "body", "body"))] = text(rng)
    context = _message_context(rng)
    context |= {"segments_max": rng.choice((1, 10_000)), "first_contact": rng.random() < 0.5}
    return {"kind": "sms", "artifact": maybe(rng, draft), "context": context}


def _message_context(rng: random.Random) -> Json:
    context: Json = {}
    if rng.random() < 0.6:
        context["recipient"] = maybe(
            rng, rng.choice((WHOM, {"name": text(rng, 5_000)}, {"worker_id": short(rng)}))
        )
    if rng.random() < 0.4:
        context["url_allowlist"] = maybe(rng, rng.choice((["a.com"], [short(rng) for _ in range(500)], [])))
    if rng.random() < 0.5:
        context["audience"] = rng.choice(("worker", "client"))
    return context


def json_schema(rng: random.Random) -> Json:
    make: Callable[[random.Random], tuple[Any, Any]] = rng.choice(SCHEMAS)
    value, schema = make(rng)
    return {"kind": "json_schema", "artifact": value, "context": {"schema": schema}}


def _pattern(rng: random.Random) -> tuple[Any, Any]:
    value = rng.choice((text(rng), "a" * 60_000, "a" * 30_000 + "!"))
    pattern = rng.choice(PATTERNS)
    if rng.random() < 0.3:
        return {value[:20_000]: 1}, {"patternProperties": {pattern: {"type": "string"}}}
    return value, {"pattern": pattern}


def _deep(rng: random.Random) -> tuple[Any, Any]:
    depth = rng.choice((10, 100, 250, 600))
    key = rng.choice((None, "a", ""))
    return nested(depth, "x", key), rng.choice(
        (
            {
                "items": {"$ref": "#"},
                "additionalProperties": {"$ref": "#"},
                "type": ["array", "object", "integer"],
            },
            nested(
                min(depth, 200), {"type": "integer"}, rng.choice(("items", "additionalProperties", "not"))
            ),
            {"anyOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]},
            True,
        )
    )


def _wide(rng: random.Random) -> tuple[Any, Any]:
    count = rng.choice((10, 1_000, 10_000))
    values: list[Any] = rng.choice(([0] * count, list(range(count)), [{"a": n} for n in range(count // 2)]))
    return values, rng.choice(
        (
            {"uniqueItems": True},
            {"items": {"enum": list(range(-1_000, 0))}},
            {"items": {"type": "string"}},
            {"contains": {"const": "x"}, "minContains": 2},
            {"items": {"multipleOf": rng.choice((1e-308, 1e308, 0.1, 3))}},
            {"items": {"oneOf": [{"const": n} for n in range(300)]}},
            {"prefixItems": [{"type": "string"}] * 1_000, "items": False},
            {"items": {"format": "email", "minLength": 2**53 - 1}},
            {"unevaluatedItems": False, "allOf": [{"contains": {"type": "integer"}}] * 50},
        )
    )


def _any_schema(rng: random.Random) -> tuple[Any, Any]:
    return anything(rng), anything(rng)


def _refs(rng: random.Random) -> tuple[Any, Any]:
    steps = rng.choice((3, 10, 14, 40))
    fan = rng.choice((1, 2, 3))
    word = rng.choice(("allOf", "anyOf", "oneOf"))
    defs: Json = {f"s{n}": {word: [{"$ref": f"#/$defs/s{n + 1}"}] * fan} for n in range(steps)}
    defs[f"s{steps}"] = rng.choice(({}, {"type": "string"}, {"$ref": "#/$defs/s0"}))
    return 1, {"$defs": defs, "$ref": "#/$defs/s0"}


SCHEMAS = (_pattern, _deep, _wide, _any_schema, _refs)
MAKERS: tuple[Callable[[random.Random], Json], ...] = (fill, email, sms, json_schema)


def request(rng: random.Random) -> Json:
    """One hostile request, as text now and then."""
    made = rng.choice(MAKERS)(rng)
    if rng.random() < 0.1:
        made["artifact"] = broken(rng, encoded(made["artifact"]).decode())
    if rng.random() < 0.03:
        made[rng.choice(("kind", "context", "artifact", "run_id", short(rng)))] = anything(rng)
    return made


def broken(rng: random.Random, content: str) -> str:
    """JSON text with a piece cut out, or put in."""
    at = rng.randrange(len(content) + 1)
    return (
        content[:at]
        + rng.choice(("", short(rng), "[" * 30_000, '{"a":' * 8_000))
        + content[at + rng.randrange(3) :]
    )


def body(rng: random.Random) -> bytes:
    """The request as it is sent: well-formed, mostly."""
    content = encoded(request(rng))
    if rng.random() < 0.05:
        at = rng.randrange(len(content) + 1)
        content = content[:at] + rng.randbytes(rng.randrange(6)) + content[at + rng.randrange(6) :]
    return content if len(content) <= BYTES_MAX or rng.random() < 0.1 else content[:BYTES_MAX]
