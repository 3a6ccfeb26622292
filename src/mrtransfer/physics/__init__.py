"""What a scanner does: signal equations, coils, sampling, noise."""
