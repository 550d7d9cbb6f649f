"""Cutting a list of token sequences into forward passes."""

from collections.abc import Iterator, Sequence

from modeld.backends import Tokens


def batches(sequences: Sequence[Tokens], *, items_max: int, tokens_max: int) -> Iterator[list[int]]:
    """Indexes into `sequences`, grouped: like lengths together, since every row is padded to the longest.

    No group has more than `items_max` rows nor, padded, more than `tokens_max` tokens, unless a single
    sequence alone is longer.
    """
    group: list[int] = []
    for index in sorted(range(len(sequences)), key=lambda index: len(sequences[index])):
        padded = len(sequences[index]) * (len(group) + 1)  # ascending, so this one is the longest
        if group and (len(group) == items_max or padded > tokens_max):
            yield group
            group = []
        group.append(index)
    if group:
        yield group
