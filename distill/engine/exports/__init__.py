"""Export: evidence becomes a dataset folder, and whatever is left out lies in it with the reason."""

from distill.engine.exports.run import OPTIONS, Exported, checked, export

__all__ = ["OPTIONS", "Exported", "checked", "export"]
