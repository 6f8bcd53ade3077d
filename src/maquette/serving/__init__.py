"""Trained models to talk to: a chat page, a blind arena that collects preferences, an OpenAI-compatible endpoint."""
