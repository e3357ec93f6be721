"""From records to model inputs."""
