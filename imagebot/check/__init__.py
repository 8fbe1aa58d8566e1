"""`imagebot check DIRECTORY`: what is wrong with manifests and markers, found without a network."""
