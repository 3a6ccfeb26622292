"""Use it: predict."""
