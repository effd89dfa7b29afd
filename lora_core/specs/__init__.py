"""Frozen descriptions of a run, shared by file, command line, API, database and artifact."""
