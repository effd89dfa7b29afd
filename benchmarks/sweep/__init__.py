"""A sweep of 24 trials, by grid and by halving, compared with a loop over PEFT and the Trainer."""
