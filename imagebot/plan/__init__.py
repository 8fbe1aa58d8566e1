"""`imagebot plan DIRECTORY`: what a pass would do, without doing it."""
