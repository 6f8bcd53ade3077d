"""Curation: which documents of a crawl are worth training on, and why."""
