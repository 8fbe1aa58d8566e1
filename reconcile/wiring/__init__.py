"""Puts the controllers of the core itself into the service: sources and Kustomizations (entry points of `reconcile.packages`)."""
