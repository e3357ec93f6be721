"""Samplers, worker processes and the loaders of training and evaluation."""
