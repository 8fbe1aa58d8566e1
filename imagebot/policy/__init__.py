"""Choosing a tag: pure functions from a set of tags to a choice with its reason."""
