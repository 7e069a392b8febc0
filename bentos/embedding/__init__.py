"""The embedding bento: texts to vectors."""
