"""What came out of jobs: curves, comparison, misclassified texts."""
