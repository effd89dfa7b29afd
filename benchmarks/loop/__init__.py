"""The loop: labels that a choice of texts saves, and whether what is said about models holds."""
