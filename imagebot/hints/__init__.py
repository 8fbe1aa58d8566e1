"""Hints: registries that tell of a push by webhook, so that its image is scanned at once."""
