"""Says whether a model's output may reach production: findings by code, path and fix, and a verdict."""
