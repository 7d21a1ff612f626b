"""Pieces that several data sets share: decoding, the MVTec folder layout, views for a model."""
