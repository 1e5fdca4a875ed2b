"""Finding out how far the activations of a model reach, on what it really computes."""
