"""Traffic: counts of predictions, and the predictions that the settings say to keep."""
