"""Prediction runs: a model's answers to every row of a file."""
