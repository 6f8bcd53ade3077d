"""A whole evaluation: what is asked, judged and kept, what it comes to, its page, and the leaderboard."""
