"""Labeling projects: people label the texts of a dataset, which texts come next is chosen."""
