"""What bentos that hold models share: settings, weights, tokenization, padding, and the queue of each device."""
