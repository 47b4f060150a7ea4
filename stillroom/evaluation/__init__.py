"""Networks on images: figures, checks, sample images."""
