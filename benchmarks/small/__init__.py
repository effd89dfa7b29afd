"""How good a model of 16 to 4,000 labelled texts is, beside simpler methods and SetFit."""
