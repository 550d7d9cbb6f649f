"""What the agency places: roles, certificates and shifts, with the words that belong to each role."""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

DEMO_ROLE: Final = "forklift operator"


@dataclass(frozen=True, slots=True)
class Shift:
    """A shift in the site's local time; one that ends before it starts runs over midnight."""

    name: str
    start: time
    end: time

    def interval(self, day: date, days: int, zone: ZoneInfo) -> tuple[datetime, datetime]:
        """Start on `day` and end `days` shifts later, both with the offset in force at that moment."""
        overnight = self.end <= self.start
        last = day + timedelta(days=days - 1 + overnight)
        return datetime.combine(day, self.start, zone), datetime.combine(last, self.end, zone)


SHIFTS: Final = (
    Shift("day", time(6, 0), time(14, 30)),
    Shift("late", time(14, 0), time(22, 30)),
    Shift("night", time(22, 0), time(6, 30)),
    Shift("office", time(8, 0), time(17, 0)),
)
PLANT, ROUND_THE_CLOCK, OFFICE, EVENING = (0, 0, 1, 2), (0, 1, 2), (3,), (1, 1, 0)
"""Which shifts a kind of work has, repeated by how often."""

CERTS: Final[dict[str, tuple[str, int]]] = {
    # code: (title, years it holds)
    "AERIAL-LIFT": ("aerial lift card", 3),
    "ALCOHOL": ("responsible alcohol service permit", 3),
    "AWS-D1.1": ("AWS D1.1 welder qualification", 1),
    "BLS": ("BLS provider card", 2),
    "CDL-A": ("class A commercial licence", 4),
    "CDL-B": ("class B commercial licence", 4),
    "CNA": ("nurse aide registration", 2),
    "DOT-MED": ("DOT medical card", 2),
    "EPA-608": ("EPA 608 refrigerant certificate", 10),
    "FLAGGER": ("flagger card", 3),
    "FOOD-HANDLER": ("food handler card", 3),
    "FORKLIFT": ("powered industrial truck evaluation", 3),
    "GUARD": ("guard registration", 2),
    "HAZWOPER": ("HAZWOPER refresher", 1),
    "IPC-610": ("IPC-A-610 certificate", 2),
    "LOTO": ("lockout/tagout training", 1),
    "LPN": ("practical nurse licence", 2),
    "MED-AIDE": ("medication aide certificate", 2),
    "NIMS": ("NIMS machining credential", 5),
    "OSHA-10": ("OSHA 10 card", 5),
    "OSHA-30": ("OSHA 30 card", 5),
    "PHLEB": ("phlebotomy certificate", 2),
    "REACH": ("reach truck endorsement", 3),
    "RN": ("registered nurse licence", 2),
    "SERVSAFE": ("food protection manager certificate", 5),
    "TB-TEST": ("tuberculosis screening", 1),
}


@dataclass(frozen=True, slots=True)
class Role:
    """A job role. `weight` is its share of the roster; `gear` and `duty` are words for notes."""

    name: str
    weight: int
    certs: tuple[str, ...]
    age_min: int | None
    shifts: tuple[int, ...]
    gear: str
    duty: str
    compatible: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


_WAREHOUSE: Final = (
    Role(
        "forklift operator",
        60,
        ("FORKLIFT",),
        18,
        PLANT,
        "sit-down forklift",
        "moving pallets to the dock",
        ("reach truck operator",),
        ("forklift driver", "fork truck operator"),
    ),
    Role(
        "reach truck operator",
        22,
        ("FORKLIFT", "REACH"),
        18,
        PLANT,
        "reach truck",
        "putting pallets away",
        ("forklift operator",),
        ("stand-up forklift operator",),
    ),
    Role(
        "picker packer",
        90,
        (),
        None,
        PLANT,
        "RF scanner",
        "picking and packing orders",
        ("order selector", "warehouse associate"),
        ("pick packer", "picker/packer"),
    ),
    Role("order selector", 40, (), 18, PLANT, "voice headset", "building mixed pallets", ("picker packer",)),
    Role(
        "warehouse associate",
        80,
        (),
        None,
        PLANT,
        "hand truck",
        "loading and sorting freight",
        ("picker packer", "material handler"),
        ("warehouse worker",),
    ),
    Role(
        "material handler",
        50,
        ("OSHA-10",),
        18,
        PLANT,
        "pallet jack",
        "feeding the lines with parts",
        ("warehouse associate",),
    ),
    Role(
        "dock worker",
        35,
        ("OSHA-10",),
        18,
        PLANT,
        "dock plate",
        "unloading trailers",
        ("material handler",),
        ("loader",),
    ),
    Role("inventory clerk", 20, (), None, OFFICE, "cycle count sheet", "counting stock"),
)
_PLANT: Final = (
    Role(
        "CNC machinist",
        30,
        ("NIMS",),
        18,
        PLANT,
        "five-axis mill",
        "setting up and running parts",
        ("CNC operator",),
        ("CNC set-up machinist",),
    ),
    Role(
        "CNC operator",
        35,
        ("LOTO",),
        18,
        PLANT,
        "CNC lathe",
        "loading and gauging parts",
        (),
        ("machine operator, CNC",),
    ),
    Role("welder", 30, ("AWS-D1.1",), 18, PLANT, "MIG gun", "welding brackets", (), ("MIG welder",)),
    Role(
        "assembler",
        70,
        (),
        None,
        PLANT,
        "torque driver",
        "building sub-assemblies",
        (),
        ("assembly line worker",),
    ),
    Role("electronics assembler", 25, ("IPC-610",), None, PLANT, "soldering station", "soldering boards"),
    Role("machine operator", 55, ("LOTO",), 18, PLANT, "injection press", "tending presses"),
    Role("press brake operator", 15, ("LOTO",), 18, PLANT, "press brake", "bending sheet metal"),
    Role("quality inspector", 25, (), 18, PLANT, "calliper set", "checking first pieces"),
    Role(
        "maintenance technician",
        25,
        ("LOTO", "OSHA-30"),
        18,
        ROUND_THE_CLOCK,
        "meter and lock-out kit",
        "keeping the lines running",
    ),
    Role("industrial painter", 12, ("HAZWOPER",), 18, PLANT, "spray gun", "coating housings"),
)
_CARE: Final = (
    Role(
        "CNA",
        60,
        ("BLS", "CNA", "TB-TEST"),
        18,
        ROUND_THE_CLOCK,
        "gait belt",
        "helping residents",
        (),
        ("certified nursing assistant", "nurse aide"),
    ),
    Role(
        "LPN",
        25,
        ("BLS", "LPN", "TB-TEST"),
        18,
        ROUND_THE_CLOCK,
        "treatment cart",
        "giving treatments",
        (),
        ("licensed practical nurse",),
    ),
    Role(
        "registered nurse",
        25,
        ("BLS", "RN", "TB-TEST"),
        18,
        ROUND_THE_CLOCK,
        "telemetry monitor",
        "running the unit",
        (),
        ("RN",),
    ),
    Role(
        "medication aide",
        15,
        ("CNA", "MED-AIDE", "TB-TEST"),
        18,
        ROUND_THE_CLOCK,
        "medication cart",
        "passing medications",
        ("CNA",),
        ("med tech",),
    ),
    Role("home health aide", 30, ("TB-TEST",), 18, OFFICE, "visit log", "visiting clients at home"),
    Role("phlebotomist", 15, ("PHLEB",), 18, OFFICE, "draw tray", "drawing samples"),
    Role("medical receptionist", 15, (), 18, OFFICE, "intake tablet", "checking patients in"),
)
_HOSPITALITY: Final = (
    Role(
        "line cook",
        40,
        ("FOOD-HANDLER",),
        None,
        EVENING,
        "flat-top grill",
        "working the line",
        ("prep cook",),
    ),
    Role("prep cook", 30, ("FOOD-HANDLER",), None, EVENING, "slicer", "preparing cold stations"),
    Role(
        "kitchen manager",
        8,
        ("FOOD-HANDLER", "SERVSAFE"),
        18,
        EVENING,
        "prep sheet",
        "running the pass",
        ("line cook",),
    ),
    Role("dishwasher", 30, (), None, EVENING, "dish machine", "running the dish pit"),
    Role("banquet server", 40, ("FOOD-HANDLER",), None, EVENING, "serving tray", "serving plated dinners"),
    Role("bartender", 20, ("ALCOHOL",), 21, EVENING, "portable bar", "tending the bar"),
    Role("housekeeper", 40, (), None, OFFICE, "linen cart", "turning rooms", (), ("room attendant",)),
)
_FIELD: Final = (
    Role(
        "truck driver",
        25,
        ("CDL-A", "DOT-MED"),
        21,
        PLANT,
        "day cab",
        "running drop and hook",
        (),
        ("CDL driver", "class A driver"),
    ),
    Role("delivery driver", 25, ("CDL-B", "DOT-MED"), 18, PLANT, "box truck", "running a local route"),
    Role(
        "construction labourer",
        40,
        ("OSHA-10",),
        18,
        (0,),
        "jackhammer",
        "clearing the site",
        (),
        ("construction laborer", "general labourer"),
    ),
    Role("flagger", 12, ("FLAGGER",), 18, (0, 2), "stop/slow paddle", "directing traffic"),
    Role("scaffold builder", 10, ("AERIAL-LIFT", "OSHA-30"), 18, (0,), "scaffold frames", "raising scaffold"),
    Role("HVAC technician", 12, ("EPA-608",), 18, OFFICE, "manifold gauges", "servicing rooftop units"),
    Role("security guard", 25, ("GUARD",), 18, ROUND_THE_CLOCK, "patrol wand", "walking the perimeter"),
    Role("janitor", 35, (), None, (1, 2), "floor scrubber", "cleaning after hours", (), ("cleaner",)),
)
_OFFICE: Final = (
    Role(
        "customer service representative",
        35,
        (),
        None,
        OFFICE,
        "softphone",
        "taking calls",
        (),
        ("call centre agent",),
    ),
    Role("data entry clerk", 20, (), None, OFFICE, "scanner and forms", "keying invoices"),
)

ROLES: Final = (*_WAREHOUSE, *_PLANT, *_CARE, *_HOSPITALITY, *_FIELD, *_OFFICE)
"""Every role; a role may be filled only by itself, or by one it lists as compatible (one way)."""


def role_named(name: str) -> Role:
    """The role of that name. Raises `KeyError` when the agency does not place it."""
    return {role.name: role for role in ROLES}[name]


def role_catalogue() -> dict[str, Any]:
    """The roles as the body of `PUT /v1/roles`."""
    return {
        "roles": [
            {"name": role.name, "aliases": list(role.aliases), "compatible": list(role.compatible)}
            for role in ROLES
        ]
    }
