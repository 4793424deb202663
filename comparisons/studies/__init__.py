"""Studies of a model by itself, or of what its maps say."""
