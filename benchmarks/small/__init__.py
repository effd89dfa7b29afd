"""How good a model of 16 to 4,000 labeled texts is, beside simpler methods and SetFit."""
