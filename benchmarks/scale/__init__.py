"""What an installation of 100,000 jobs costs those who use it."""
