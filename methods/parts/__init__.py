"""Pieces that methods share: backbones, memory bank, diffusion, training loop, maps."""
