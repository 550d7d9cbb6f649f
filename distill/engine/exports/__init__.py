"""Export: evidence becomes a dataset folder, and whatever is left out lies in it with the reason."""

from distill.engine.exports.run import (
    MANIFEST,
    OPTIONS,
    RECEIPT,
    Exported,
    checked,
    export,
    remove_leftovers,
)

__all__ = ["MANIFEST", "OPTIONS", "RECEIPT", "Exported", "checked", "export", "remove_leftovers"]
