"""`imagebot explain`: why an image was chosen, or was not, from the tag in the registry to the line in Git."""
