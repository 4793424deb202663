"""Statistics over images: intervals and paired tests."""
