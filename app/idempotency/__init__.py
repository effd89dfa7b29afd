"""The answers to creating calls, kept so that a repeated call creates nothing twice."""
