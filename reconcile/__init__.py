"""The reconcile core: everything a controller needs, and nothing about images or canaries.

Layers, top first; a layer may import those below it, never one above or beside it (`pyproject.toml` holds the contract):

    cli → app → local (adapters) → git | registry (engines) → net → runtime → settings → ports → api → pure base modules

`imagebot` and `canary` are found through the entry-point group `reconcile.packages`; this package never imports them.
"""

__version__ = "0.1.0"
