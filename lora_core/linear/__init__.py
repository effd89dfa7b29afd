"""The linear model: TF-IDF of words and word pairs, and logistic regression. Without torch."""
