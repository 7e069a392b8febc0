"""A cache of embeddings by exact input, in memory and in Redis, in front of the embedding service."""
