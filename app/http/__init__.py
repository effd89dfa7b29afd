"""HTTP concerns shared by all routes: middleware, errors, pagination, dependencies."""
