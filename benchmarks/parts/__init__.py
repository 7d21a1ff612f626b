"""What several data sets share: decoding, the MVTec layout, content checks, views for a model."""
