"""Does a model make things up? Invented people, some of whom it was never told about."""
