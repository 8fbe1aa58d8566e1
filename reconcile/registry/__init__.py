"""OCI distribution client: names, credentials, challenges, tags, manifests."""
