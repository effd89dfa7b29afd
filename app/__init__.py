"""The service: REST API, database tables and command line."""
