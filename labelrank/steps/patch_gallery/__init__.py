"""A few samples of each class with the scores of their patches, for a page."""
