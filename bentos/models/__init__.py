"""Code that all bentos with models share: settings, weights, tokenization, padding, and the queue of each device."""
