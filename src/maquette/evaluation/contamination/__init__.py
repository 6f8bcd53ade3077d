"""Was the test in the training text? By order of examples, and by shared n-grams."""
