"""Curation: which documents of a crawl are worth training on, and the evidence for it."""
