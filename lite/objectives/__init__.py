"""Pure tensors: masks, log-probabilities, preference losses, PPO."""
