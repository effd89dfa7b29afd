"""Labeling: the list of projects with the form of a new one, a project, and its texts to label."""
