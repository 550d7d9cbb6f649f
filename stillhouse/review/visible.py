"""Texts of others, made safe for a terminal: nothing in them moves the cursor or turns the reading order."""

from typing import Final

PICTURES: Final = 0x2400
"""Where Unicode has pictures of the control characters."""
DELETE: Final = 0x7F
DELETE_PICTURE: Final = "\u2421"
REPLACEMENT: Final = "\ufffd"
TURNING: Final = (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C)
"""Marks and overrides of the reading order, by which a text can look like another one."""

_TABLE: Final = {
    **{code: chr(PICTURES + code) for code in range(0x20) if chr(code) not in "\n\t"},
    DELETE: DELETE_PICTURE,
    **dict.fromkeys((*range(0x80, 0xA0), *TURNING), REPLACEMENT),
}


def visible(text: str) -> str:
    """The text with every character that a terminal would obey shown instead."""
    return text.translate(_TABLE)


def shortened(text: str, chars_max: int) -> str:
    """The beginning of a long text, and how much is missing."""
    left = len(text) - chars_max
    return text if left <= 0 else f"{text[:chars_max]} … {left:,} more characters (v shows them)"
