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
        ("Hans Mueller", "Hans", "Müller"),
        ("Hans Müller", "Hans", "Mueller"),
        ("Hans Muller", "Hans", "Müller"),
        ("John Smith", "John", "Smith Jr."),
        ("John Smith Junior", "John", "Smith Jr."),
        ("John Smith II", "John", "Smith"),
        ("Kim St. John", "Kim", "St. John"),
        ("St John, Kim", "Kim", "St. John"),
        ("Jan van der Berg", "Jan", "van der Berg"),
        ("Sr. Young", "Sr.", "Young"),
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
        ("John Smith Jr.", "John", "Smith Sr."),
        ("John Smith III", "John", "Smith Jr."),
        ("Hans Moeller", "Hans", "Müller"),
        ("Ana Lee", "Anna", "Lee"),
        ("Amy Lee", "May", "Lee"),
        ("Kim John", "Kim", "St. John"),
        ("John St", "Kim", "St. John"),
        ("x" * 500, "John", "Smith"),
        ("Robert Robert", "Robert", "Young"),
    ],
)
def test_somebody_else(policy: Policy, written: str, first: str, last: str) -> None:
    assert not NameMatcher(policy.nicknames).matches(written, Person.of(first, last))


@pytest.mark.parametrize("written", ["William St. John", "Mr. St. John", "Mr. John", "Bill", "William"])
def test_a_full_name_may_be_divided_anywhere(policy: Policy, written: str) -> None:
    titled = written.startswith("Mr.")
    person = Person.of_full("William St. John")
    assert NameMatcher(policy.nicknames).greets(written, person, titled=titled)


def test_a_full_name_greets_nobody_else(policy: Policy) -> None:
    matcher = NameMatcher(policy.nicknames)
    person = Person.of_full("William St. John")
    assert not matcher.greets("Mr. St. James", person, titled=True)
    assert not matcher.greets("Johnny", Person.of_full("Young, Robert"), titled=False)
