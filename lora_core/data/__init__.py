"""Load texts and labels from a file, a hub data set or a sample, check, split and tokenize them."""
