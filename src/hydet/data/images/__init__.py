"""Reading of image files and label maps."""
