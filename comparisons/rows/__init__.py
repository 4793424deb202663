"""The rows of a table: which method, with which options, threshold and budget."""
