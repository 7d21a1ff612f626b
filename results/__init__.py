"""Results: metrics, the long Parquet table and the reports made from it."""
