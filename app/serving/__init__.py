"""Answers from loaded models. The only part of the service that loads torch."""
