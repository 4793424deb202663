"""``wordlight app``: the models and methods in a browser, for several users."""
