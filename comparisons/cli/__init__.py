"""The commands, one a module: ``add_to`` adds its parser, whose ``run`` does it."""
