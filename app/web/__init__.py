"""Server-rendered pages. They use the same middleware, permissions and services as the API."""
