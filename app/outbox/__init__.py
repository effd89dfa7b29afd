"""The transactional outbox: events are stored as webhook deliveries with the change they report."""
