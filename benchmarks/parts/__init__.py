"""Parts of several data sets: decoding, the MVTec layout, content checks, views for a model."""
