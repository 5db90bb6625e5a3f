"""What a model does inside, measured."""
