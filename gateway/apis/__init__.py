"""One folder for each API family; handlers only translate and call."""
