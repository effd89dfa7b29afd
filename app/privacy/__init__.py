"""Hashes of texts, and which texts must be forgotten."""
