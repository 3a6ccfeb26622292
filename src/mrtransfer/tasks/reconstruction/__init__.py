"""Reconstruction: crop, losses, metrics of whole volumes, pictures of one slice."""
