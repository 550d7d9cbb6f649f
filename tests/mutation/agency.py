"""The people of the suite: workers made to measure for each case, and the roster that holds them all."""

import random
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq

DAY = timedelta(days=1)
CERT = pa.struct([("code", pa.string()), ("expires", pa.date32())])
ASSIGNMENT = pa.struct(
    [("order_id", pa.string()), ("start", pa.timestamp("us", "UTC")), ("end", pa.timestamp("us", "UTC"))]
)
TYPES = {
    "roles": pa.list_(pa.string()),
    "date_of_birth": pa.date32(),
    "certs": pa.list_(CERT),
    "blocked_clients": pa.list_(pa.string()),
    "assignments": pa.list_(ASSIGNMENT),
}

Certificate = tuple[str, date | None]
Assignment = tuple[str, datetime, datetime]


@dataclass
class Worker:
    """A row of the roster, to be changed at will until the roster is written."""

    worker_id: str
    first_name: str
    last_name: str
    city: str
    state: str
    phone: str
    email: str
    status: str = "active"
    roles: list[str] = field(default_factory=list)
    date_of_birth: date | None = date(1988, 5, 17)
    certs: list[Certificate] = field(default_factory=list)
    blocked_clients: list[str] = field(default_factory=list)
    assignments: list[Assignment] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.first_name} {self.last_name}"


@dataclass(frozen=True)
class Place:
    """A city with the ways in which people write it, and the zone that it keeps."""

    city: tuple[str, ...]
    state: tuple[str, ...]
    zone: str


PLACES = (
    Place(("Columbus", "COLUMBUS", " columbus "), ("OH", "Ohio", "ohio"), "America/New_York"),
    Place(("St. Louis", "Saint Louis", "St Louis", "ST. LOUIS"), ("MO", "Missouri"), "America/Chicago"),
    Place(("Saint Paul", "St. Paul"), ("Minnesota", "MN", "mn"), "America/Chicago"),
    Place(("Fort Worth", "Ft. Worth", "Ft Worth"), ("TX", "Texas"), "America/Chicago"),
    Place(("El Paso", "EL PASO"), ("TX", "Texas"), "America/Denver"),
    Place(("Phoenix",), ("AZ", "Arizona"), "America/Phoenix"),
    Place(("Cañon City", "Canon City"), ("CO", "Colorado"), "America/Denver"),
    Place(("Los Angeles", "los angeles"), ("CA", "California"), "America/Los_Angeles"),
    Place(("New York", "New York City"), ("NY", "New York"), "America/New_York"),
    Place(("Anchorage",), ("AK", "Alaska"), "America/Anchorage"),
    Place(("Honolulu",), ("HI", "Hawaii"), "Pacific/Honolulu"),
    Place(("Indianapolis",), ("IN", "Indiana"), "America/Indiana/Indianapolis"),
    Place(("Winston-Salem", "Winston Salem"), ("NC", "North Carolina"), "America/New_York"),
    Place(("Coeur d'Alene", "Coeur d’Alene"), ("ID", "Idaho"), "America/Los_Angeles"),
    Place(("Portland",), ("OR", "Oregon"), "America/Los_Angeles"),
    Place(("San Juan",), ("PR", "Puerto Rico"), "America/Puerto_Rico"),
)
ELSEWHERE = (
    ("Portland", "ME"),
    ("Columbus", "GA"),
    ("Kansas City", "KS"),
    ("St. Paul", "NE"),
    ("Toledo", "OH"),
    ("Springfield", "MO"),
    ("Louisville", "KY"),
    ("", ""),
)
ROLES = (
    ("Forklift Operator", "forklift driver", "Fork-Lift Operator", "FORKLIFT  OPERATOR"),
    ("Warehouse Associate", "warehouse associate", "Warehouse-Associate"),
    ("Certified Nursing Assistant", "CNA", "certified nursing assistant"),
    ("Registered Nurse", "RN", "registered nurse"),
    ("Janitor", "janitor", "Custodian"),
    ("Welder", "WELDER"),
    ("Line Cook", "line cook", "Line-Cook"),
)
OTHER_ROLES = ("Forklift Mechanic", "Dishwasher", "Nurse Practitioner", "Truck Mechanic", "Warehouse Manager")
FIRST_NAMES = (
    *("Robert", "María José", "Siobhán", "Jean-Luc", "Young", "D'Andre", "Björn", "Mary Ann", "José", "Xiao"),
    *("LaTonya", "Zoë", "William", "Katherine", "Christopher", "Ana", "Đorđe", "Michael", "Elizabeth", "Kim"),
)
LAST_NAMES = (
    *("Young", "O'Connor-Núñez", "Johnson", "Li", "St. John", "de la Cruz", "van der Berg", "McDonald", "Ng"),
    *("Peña", "Müller", "Smith", "Garcia-Lopez", "Nguyễn", "O'Brien", "Christian", "White", "Black", "Old"),
)
NICKNAMES = {
    "Robert": ("Bob", "Rob", "Bobby"),
    "William": ("Bill", "Will"),
    "Katherine": ("Kate", "Kathy"),
    "Christopher": ("Chris",),
    "Michael": ("Mike",),
    "Elizabeth": ("Liz", "Beth"),
}
NAMESAKES = (
    ("Robert Young", "Roberta Young"),
    ("Daniel Johnson", "Daniel Johnston"),
    ("Maria Lopez", "Mario Lopez"),
    ("Christina Lee", "Christine Lee"),
    ("Jose Garcia", "Jose Garza"),
    ("Eric Olsen", "Erica Olsen"),
    ("Jean Martin", "Joan Martin"),
    ("Patricia Hill", "Patrick Hill"),
    ("Young Kim", "Yong Kim"),
    ("Siobhán O'Brien", "Sinéad O'Brien"),
    ("Kim Park", "Kim Clark"),
    ("Andrew Young", "Andre Young"),
    ("Carl McDonald", "Carla McDonald"),
    ("Robert Young", "Somebody Else"),
    ("Xiao Li", "Xiao Lin"),
)
"""Two people each, whom a loose comparison takes for one."""


@dataclass(frozen=True)
class Shift:
    """A shift at a place, half-open."""

    place: Place
    start: datetime
    end: datetime

    @property
    def first_day(self) -> date:
        return self.start.date()

    @property
    def last_day(self) -> date:
        zone = ZoneInfo(self.place.zone)
        return (self.end.astimezone(UTC) - timedelta(microseconds=1)).astimezone(zone).date()

    def after(self, minutes: int) -> datetime:
        return self.end.astimezone(UTC) + timedelta(minutes=minutes)

    def before(self, minutes: int) -> datetime:
        return self.start.astimezone(UTC) - timedelta(minutes=minutes)


CHANGES_OF_CLOCKS = (date(2026, 3, 8), date(2026, 11, 1), date(2027, 3, 14), date(2027, 11, 7))
HOURS = (
    (time(6), time(14), 0),
    (time(22), time(6), 1),
    (time(16), time(0), 1),
    (time(0), time(8), 0),
    (time(23, 45), time(0, 15), 1),
    (time(19), time(7), 1),
    (time(7), time(19), 2),
    (time(0), time(0), 1),
    (time(22), time(2), 1),
    (time(9, 30), time(9, 45), 0),
)


def shift(rng: random.Random) -> Shift:
    """A shift somewhere: by day, over midnight, over a change of clocks, over the end of a year."""
    place = rng.choice(PLACES)
    day = rng.choice(
        (
            date(2026, 1, 5) + DAY * rng.randrange(700),
            rng.choice(CHANGES_OF_CLOCKS) - DAY * rng.randrange(2),
            rng.choice((date(2026, 12, 31), date(2026, 2, 28), date(2028, 2, 28))),
        )
    )
    start, end, days = rng.choice(HOURS)
    zone = ZoneInfo(place.zone)
    return Shift(place, datetime.combine(day, start, zone), datetime.combine(day + DAY * days, end, zone))


def written(rng: random.Random, moment: datetime, *, utc: bool) -> str:
    """ISO 8601 as different systems write it."""
    if utc:
        return moment.astimezone(UTC).isoformat().replace("+00:00", rng.choice(("Z", "+00:00")))
    return moment.isoformat(timespec=rng.choice(("seconds", "minutes", "milliseconds")))


class Agency:
    """Hires workers, and writes them all down."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.workers: list[Worker] = []

    def hire(self, name: str | None = None, **facts: Any) -> Worker:
        """A worker with an id, a number and an address of their own."""
        rng, number = self.rng, len(self.workers)
        first, last = name.split(" ", 1) if name else (rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES))
        worker_id = (f"W-{number:06d}", f"{500_000_000 + number}", f"wrk_{number:x}_Z")[number % 3]
        place = rng.choice(PLACES)
        worker = Worker(
            worker_id,
            first,
            last,
            rng.choice(place.city),
            rng.choice(place.state),
            f"+1614{200 + number // 10_000 % 700:03d}{number % 10_000:04d}",
            f"w{number}.{rng.choice(('a', 'B.c', 'x+shifts', 'd-e', 'o_o'))}@{rng.choice(MAIL_HOSTS)}",
        )
        for key, value in facts.items():
            setattr(worker, key, value)
        self.workers.append(worker)
        return worker

    def write(self, path: Path) -> None:
        """The roster, as the contract has its columns."""
        rows: dict[str, list[Any]] = {key: [] for key in (*Worker.__dataclass_fields__, "zip")}
        for worker in self.workers:
            for key in Worker.__dataclass_fields__:
                rows[key].append(getattr(worker, key))
            rows["zip"].append("43004")
        rows["certs"] = [[{"code": c, "expires": e} for c, e in certs] for certs in rows["certs"]]
        rows["assignments"] = [
            [{"order_id": o, "start": s, "end": e} for o, s, e in booked] for booked in rows["assignments"]
        ]
        pq.write_table(
            pa.table({key: pa.array(rows[key], TYPES.get(key, pa.string())) for key in rows}), path
        )


MAIL_HOSTS = ("gmail.com", "mail.acme-staffing.com", "Outlook.com", "post.co.uk", "x1.io")


def spellings(rng: random.Random, worker: Worker) -> str:
    """The worker's name as somebody might write it who means them."""
    first, last = worker.first_name, worker.last_name
    forms = [
        worker.name,
        f"{last}, {first}",
        worker.name.upper(),
        worker.name.replace("'", "’"),
        _plain(worker.name),
        f"{first[0]}. {last}",
        worker.name.replace("-", " "),
        f"  {first}   {last} ",
    ]
    forms += [f"{nickname} {last}" for nickname in NICKNAMES.get(first, ())]
    return rng.choice(forms)


PLAIN = str.maketrans("áãäéëíñóöúüřễõđĐ", "aaaeeinoouureodD")


def _plain(text: str) -> str:
    return text.translate(PLAIN)
