"""Declarative base, engines, errors, clock and migrations of the database."""
