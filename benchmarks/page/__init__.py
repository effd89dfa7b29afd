"""Page benchmarks: time to show a long list, a live point and a long curve."""
