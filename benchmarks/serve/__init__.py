"""How fast we answer, under load that people make, beside other servers of the same checkpoint."""
