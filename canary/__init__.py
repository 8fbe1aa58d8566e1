"""Progressive delivery. Holds no code yet: it is listed so that the import contracts cover it from the first day."""
