"""Localisation: where in the image a network sees what it says, and how well that fits the masks."""
