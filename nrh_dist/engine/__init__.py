"""The loop, checkpoints, scoring and tracking: torch.distributed at most, no Ray."""
