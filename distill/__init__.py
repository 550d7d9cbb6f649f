"""Evidence: keeps every run, and turns runs into scored, exported training data."""
