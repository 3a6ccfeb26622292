"""What may be changed: augmentation and normalisation of batches."""
