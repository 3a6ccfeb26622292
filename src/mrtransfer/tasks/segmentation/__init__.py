"""Segmentation: losses, what a network's outputs mean, metrics, lesions, cleaning."""
