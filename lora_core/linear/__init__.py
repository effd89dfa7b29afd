"""The linear model: TF-IDF of words and word pairs, and logistic regression. Needs no torch."""
