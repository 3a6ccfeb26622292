"""Cases for segmentation: from a fingerprint of the training data to a plan, stored volumes, and patches of them."""
