"""What is not needed any more: which rows and files go, and when."""
