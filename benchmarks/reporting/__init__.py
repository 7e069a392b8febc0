"""Results as Markdown, JSON and a chart, and the aims they are compared with."""
