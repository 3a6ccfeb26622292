"""Anatomy seen through physics: labelled brains, contrasts, scanners, tumours."""
