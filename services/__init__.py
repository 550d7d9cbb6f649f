"""The kit that every daemon stands on. Small and boring; knows no daemon."""
