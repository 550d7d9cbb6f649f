"""Vector collections on disk, with a gate between job roles."""
