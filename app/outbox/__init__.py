"""The transactional outbox: rows of webhooks and MLflow, stored with the change they report."""
