"""Wan text-to-video: two denoising experts, a umT5 text encoder and a causal video VAE."""
