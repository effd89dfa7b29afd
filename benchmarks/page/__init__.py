"""How soon the page shows what is there: a long list, a live point, a long curve."""
