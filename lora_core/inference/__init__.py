"""Prediction with finished models."""
