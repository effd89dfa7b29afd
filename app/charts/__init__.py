"""Pictures of a sweep, and the page that tells what came out of it."""
