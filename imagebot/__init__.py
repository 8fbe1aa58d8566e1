"""Newest image → commit: the kinds of `image.toolkit.fluxcd.io` and what carries them out."""
