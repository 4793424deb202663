"""What a run keeps on disk: cells, failures, settings, and the lock of the folder."""
