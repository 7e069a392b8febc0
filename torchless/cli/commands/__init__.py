"""The subcommands: one module each, with its arguments and options. They import what they run only when they run."""
