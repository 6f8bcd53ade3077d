"""Feedback: tasks with gold rewards, those who prefer one answer to another, and what is made of their preferences."""
