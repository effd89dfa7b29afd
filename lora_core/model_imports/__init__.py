"""Import models that were trained elsewhere, all of which are untrusted."""
