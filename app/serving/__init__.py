"""Online prediction with the registered models. The only part of the service that loads torch."""
