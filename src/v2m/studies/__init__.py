"""Studies: many training runs, what came out of them, and the catalogue of studies."""
