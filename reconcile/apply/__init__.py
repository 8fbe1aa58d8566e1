"""Applies sets of objects to a cluster, staged and by server-side apply, keeps them so, and takes away what left the set."""
