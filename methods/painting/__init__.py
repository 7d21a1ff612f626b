"""Synthetic defects painted on images: noise, augmentation, textures."""
