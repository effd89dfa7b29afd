"""Answers to every row of a file."""
