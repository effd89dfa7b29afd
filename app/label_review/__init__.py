"""Suspect labels of datasets, and corrected versions of them."""
