"""A registry and a Git server in process, and the demonstration that uses them. Tests use them too."""
