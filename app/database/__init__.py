"""Base class, engines and clock of the database."""
