"""The `torchless` command: starts the stack on one machine, shows its health, embeds and reranks texts."""
