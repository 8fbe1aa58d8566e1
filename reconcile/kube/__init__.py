"""The ports on a Kubernetes API server. The only package that imports `kubernetes`; imported only when that mode is chosen."""
