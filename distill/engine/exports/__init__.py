"""Export: evidence becomes a dataset folder, and whatever is left out lies in it with the reason."""
