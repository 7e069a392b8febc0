"""What crosses a wire: the services' messages, and the closed list of error kinds."""
