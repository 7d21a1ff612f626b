"""What is compared: one file a method, shared pieces in `parts`. The file name is the method's name."""
