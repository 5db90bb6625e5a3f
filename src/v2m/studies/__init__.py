"""Studies: many runs of training, their results, and the catalogue of those that exist."""
