"""From a table of runs to a stored fit with its page, card and pictures."""
