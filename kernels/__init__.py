"""Ops that torchvision lacks or does slowly; needs only torch, and Triton where it is present."""
