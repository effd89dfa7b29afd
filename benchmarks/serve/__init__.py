"""Serving speed under realistic load, compared with other servers of the same checkpoint."""
