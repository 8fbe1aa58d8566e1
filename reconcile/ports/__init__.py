"""Protocols between the core and its surroundings; no behaviour."""
