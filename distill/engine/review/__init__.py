"""People's part: what waits for them, in which order, what they decide, and how far they agree."""
