"""From the records of a dataset to model inputs."""
