"""Kustomizations: what is built from an artifact, decrypted and substituted, before it is applied.

Follows Flux's kustomize-controller. The pure halves (`substitute`, `variables`, `goyaml…`) know of no processes or clusters.
"""
