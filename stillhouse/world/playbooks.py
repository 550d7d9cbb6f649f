"""Notes on past fills, near-identical across roles as real notes are: what a role gate is for."""

from typing import Final

from stillhouse.world.catalogue import CERTS, ROLES, Role
from stillhouse.world.chance import stream
from stillhouse.world.orders import CLIENTS
from stillhouse.world.places import home, markets
from stillhouse.world.records import Note, Spec

_HOME_GROUPS: Final = 3
"""So many groups are about the home city, so that the demo finds notes on its own order."""

_TEMPLATES: Final = (
    (
        "Filled {count} {role} seats for {client} in {city}, {state} within {hours} hours. Called"
        " people who had worked with the {gear} in the last 90 days first. {cert} Two asked for a ride;"
        " the site is off the bus line."
    ),
    (
        "{client} in {city}, {state} wants each {role} at the gate 15 minutes early. Show the {gear}"
        " on the first day; most of the shift is {duty}. {cert} Confirm by text the evening before."
    ),
    (
        "Lost {count} of {hours} {role} starts at {client}, {city}, {state}: nobody checked the other"
        " bookings. Look for shifts that end less than ten hours before. {cert} Ask who has used the"
        " {gear} lately."
    ),
    (
        "For {duty} at {client} ({city}, {state}) the supervisor asks for people who have been"
        " there before as {role}. Offer the return list first, then neighbours within 30 minutes. {cert}"
        " Badge photos take {count} days."
    ),
    (
        "Night cover for {role} at {client} in {city}, {state}: {hours} calls for {count} seats."
        " People with their own transport said yes most often. {cert} The {gear} is shared, so"
        " stagger the breaks."
    ),
    (
        "{client} {city}, {state} raised the order from 1 to {count} {role} seats at noon. We filled"
        " it from last week's standby list in {hours} hours. {cert} New starters need a walk-through"
        " of the {gear}."
    ),
    (
        "Two {role} starts were turned away at {client} in {city}, {state} because a card had run"
        " out. {cert} Check the date against the last day of the job, not the first. The work is"
        " {duty}."
    ),
    (
        "{client}, {city}, {state}: the {role} team is small, so one absence stops {duty}. Keep"
        " {count} on standby and confirm {hours} hours ahead. {cert} Spare {gear} at the supervisor's"
        " desk."
    ),
)


def notes(spec: Spec) -> tuple[Note, ...]:
    """`notes_per_role` groups; a group has one note a role, alike but for the role's own words."""
    chance = stream(spec.seed, "playbooks")
    places = markets(spec.workers)
    shares = [city.share for city in places]
    made: list[Note] = []
    for number in range(1, spec.notes_per_role + 1):
        city = home() if number <= _HOME_GROUPS else chance.choices(places, shares)[0]
        template, client = _TEMPLATES[number % len(_TEMPLATES)], chance.choice(CLIENTS)
        count, hours = chance.randint(2, 9), chance.randint(10, 48)
        for role in ROLES:
            text = template.format(
                role=role.name,
                gear=role.gear,
                duty=role.duty,
                cert=_cert_sentence(role),
                client=client,
                city=city.name,
                state=city.state,
                count=count,
                hours=hours,
            )
            made.append(
                Note(
                    f"PB-{len(made) + 1:06d}",
                    f"G-{number:05d}",
                    role.name,
                    city.name,
                    city.state,
                    client,
                    text,
                )
            )
    return tuple(made)


def _cert_sentence(role: Role) -> str:
    if not role.certs:
        return "No card is needed."
    return f"Check the {' and the '.join(CERTS[code][0] for code in role.certs)}."
