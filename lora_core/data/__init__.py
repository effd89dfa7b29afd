"""Load texts and labels from a file, a hub dataset or a sample, check, split and tokenize them."""
