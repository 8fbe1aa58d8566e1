"""Git without work trees; the only package that starts git."""
