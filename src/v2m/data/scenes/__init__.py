"""Scenes of Fashion-MNIST garments, made for detection and segmentation."""
