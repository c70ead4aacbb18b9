"""What strings several floors together."""
