"""One run: its plan, its work image by image, and the runs there are."""
