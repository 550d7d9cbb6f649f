"""A made-up staffing agency, the same for the same seed: for the demo, the tests and the benchmarks."""

from stillhouse.world.catalogue import role_catalogue
from stillhouse.world.files import Manifest, write
from stillhouse.world.records import Message, Note, Scenario, Spec, Trap
from stillhouse.world.roster import SCHEMA
from stillhouse.world.world import World, generate

__all__ = [
    "SCHEMA",
    "Manifest",
    "Message",
    "Note",
    "Scenario",
    "Spec",
    "Trap",
    "World",
    "generate",
    "role_catalogue",
    "write",
]
