"""HTTP in front of and behind every route: middleware, errors, pages, dependencies."""
