"""Embeddings: a cache in front of Ollama that never returns a wrong vector."""
