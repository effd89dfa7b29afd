"""API keys, scopes and browser sessions."""
