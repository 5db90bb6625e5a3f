def compare_operators(rng):
    """Placeholder until the generator is there."""
