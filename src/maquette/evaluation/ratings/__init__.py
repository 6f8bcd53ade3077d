"""Strengths from battles: Bradley-Terry with ties, style and topics, from an arena's files."""
