"""A whole evaluation: its questions, results and summary, and the leaderboard of many."""
