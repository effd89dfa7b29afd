"""Retraining by rule: when a model is trained again, on which texts, and which version is used."""
