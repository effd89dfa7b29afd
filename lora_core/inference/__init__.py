"""Answers from a finished model."""
