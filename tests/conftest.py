"""Rules for every test."""
