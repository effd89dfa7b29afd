"""From a file, a hub data set or a sample to texts, labels and tokens."""
