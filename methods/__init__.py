"""What is compared: one file a method, named after it; shared pieces in `parts`."""
