"""Packaged samples: one base model and two data sets, made from files of pinned packages."""
