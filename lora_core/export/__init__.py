"""Exports of models in the formats of other programs."""
