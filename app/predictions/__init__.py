"""Prediction runs: a model's predictions for every row of a file."""
