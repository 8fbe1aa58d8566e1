"""Artifacts: what a source was packed into, where it is kept, how it is served, fetched and unpacked again."""
