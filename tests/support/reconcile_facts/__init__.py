"""Recorded stories of Flux's source-controller and kustomize-controller, played on the running service in a real cluster."""
