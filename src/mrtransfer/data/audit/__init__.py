"""What is wrong with a dataset: duplicates, leaks, label conflicts, shortcuts."""
