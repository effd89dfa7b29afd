"""A sweep of 24 cells, by grid and by halving, beside a loop over PEFT and the Trainer."""
