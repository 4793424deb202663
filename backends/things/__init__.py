"""Pictures of real nouns on drawn grounds: the data ``things``.

Nothing is imported here, so that the data set can be used without torch.
"""
