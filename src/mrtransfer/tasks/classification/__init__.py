"""Classification: heads and metrics."""
