"""Parts of the tiny text-to-video model: its world, its detector, its configuration and its training."""
