"""Reading images and label maps from files."""
