"""What metrics are measured with: built-in queries, templates, and a provider for each kind of backend."""
