"""Vectors: collections on disk, filtered search, and a role gate that fails closed."""
