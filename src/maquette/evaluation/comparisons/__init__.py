"""Completions of two models before a judge: win rates, raw and at equal length, and what the judge is worth."""
