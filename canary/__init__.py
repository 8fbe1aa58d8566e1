"""Progressive delivery: Flagger's Canaries, judged by metrics, step by step, and taken back when they fail."""
