"""What is learned: classification."""
