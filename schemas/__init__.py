"""The canonical data models: pure pydantic, importing nothing of ours."""
