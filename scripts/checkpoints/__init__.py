"""Checkpoints of Wan's shape with random weights, in both layouts, and the safetensors files that they are made of."""
