"""The `torchless` command: starts the stack on one machine, asks how it is, and embeds texts through it."""
