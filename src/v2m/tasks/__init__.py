"""Tasks, one folder each, with the same five files: config, data, head, loss, metrics."""
