"""Feedback: the right labels of predicted texts, and the accuracy that they show."""
