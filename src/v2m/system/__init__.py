"""The ground floor: errors, files, names and the machine. It knows no tensors and no images."""
