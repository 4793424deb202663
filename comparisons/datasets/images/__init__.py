"""The images of a comparison: drawn by a model, or those of a data set."""
