"""Whose name it is: spelled otherwise it passes, somebody else's does not."""

import pytest

from validators.engine import Policy
from validators.engine.names import NameMatcher, Person


@pytest.mark.parametrize(
    ("written", "first", "last"),
    [
        ("Maria Jose O’Connor Nunez", "María José", "O'Connor-Núñez"),
        ("O'Connor-Núñez, María José", "María José", "O'Connor-Núñez"),
        ("MARIA OCONNOR-NUNEZ", "María José", "O'Connor-Núñez"),
        ("M. J. O'Connor-Núñez", "María José", "O'Connor-Núñez"),
        ("Young Robert", "Robert", "Young"),
        ("Bob Young", "Robert", "Young"),
        ("R. Young", "Robert", "Young"),
        ("Robert T. Young Jr.", "Robert", "Young"),
        ("Rob Young", "Bob", "Young"),
        ("Liz Delacruz", "Elizabeth", "De La Cruz"),
        ("Søren Müller", "Soren", "Muller"),
        ("Daneil Johnson", "Daniel", "Johnson"),
        ("Daniel Jonhson", "Daniel", "Johnson"),
        ("Phillip Haris", "Philip", "Harris"),
        ("Suharto", "Suharto", ""),
        ("Łukasz Wójcik", "Lukasz", "Wojcik"),
    ],
)
def test_the_same_person(policy: Policy, written: str, first: str, last: str) -> None:
    assert NameMatcher(policy.nicknames).matches(written, Person.of(first, last))


@pytest.mark.parametrize(
    ("written", "first", "last"),
    [
        ("Daniel Johnston", "Daniel", "Johnson"),
        ("Mario Lopez", "Maria", "Lopez"),
        ("Erica Stone", "Eric", "Stone"),
        ("John Smyth", "John", "Smith"),
        ("Jane Smith", "John", "Smith"),
        ("A. Smith", "John", "Smith"),
        ("J. S.", "John", "Smith"),
        ("John S.", "John", "Smith"),
        ("John", "John", "Smith"),
        ("Smith", "John", "Smith"),
        ("Alexander Wolf", "Alexandra", "Wolf"),
        ("Samuel Wolf", "Samantha", "Wolf"),
        ("María Núñez", "María José", "O'Connor-Núñez"),
        ("John Michael Smith", "John", "Smith"),
        ("Mаria Lopez", "Maria", "Lopez"),  # noqa: RUF001 - the second letter is Cyrillic
        ("", "John", "Smith"),
        ("Robert Robert", "Robert", "Young"),
    ],
)
def test_somebody_else(policy: Policy, written: str, first: str, last: str) -> None:
    assert not NameMatcher(policy.nicknames).matches(written, Person.of(first, last))
