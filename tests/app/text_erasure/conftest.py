"""Fixtures: services that keep traffic."""

from tests.app.feedback.conftest import Publish, Serving, keeping, publish, serving

__all__ = ["Publish", "Serving", "keeping", "publish", "serving"]
