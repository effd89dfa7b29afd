"""Packaged samples: a base model and two datasets, built from files of pinned packages."""
