"""The reranking bento: turns a query and documents into relevance scores."""
