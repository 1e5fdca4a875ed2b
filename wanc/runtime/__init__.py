"""What ships inside a bundle: everything needed to run it, and nothing of PyTorch.

The room is a leaf: relative imports only, so that the copy in a bundle works without the compiler.
"""

__version__ = "1.0.0"
