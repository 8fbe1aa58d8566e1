"""The ports without a cluster: YAML files for specs, SQLite for status."""
