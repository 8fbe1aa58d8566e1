"""Scanning registries: when, what to keep, what changed."""
