"""Retention and garbage collection: which rows and files are deleted, and when."""
