"""modeld: an Ollama-compatible server on small embedded models, for machines that have no Ollama."""
