"""Samplers, worker processes and batches."""
