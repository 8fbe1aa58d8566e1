"""Finding and rewriting marked values in YAML text, byte-exact. Pure: text in, text out."""
