"""Two label maps side by side."""
