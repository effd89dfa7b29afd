"""Packaged samples: a base model and two data sets, built from files of pinned packages."""
