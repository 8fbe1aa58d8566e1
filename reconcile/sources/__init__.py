"""Controllers of sources: what is in Git, in a registry or in a bucket becomes an artifact that others fetch."""
