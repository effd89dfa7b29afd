"""Labeling with a model in the loop: which text to label next, suggestions, accuracy so far."""
