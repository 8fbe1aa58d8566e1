"""Benchmarks: `python -m bench [NAME …]`. Each prints machine, work, time, CPU, memory and requests, as a table and as JSON."""
