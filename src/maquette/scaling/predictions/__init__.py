"""Written down before the run, judged after it."""
