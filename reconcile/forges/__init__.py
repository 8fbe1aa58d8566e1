"""Clients for the APIs of forges, behind the port `reconcile.ports.forge`."""
