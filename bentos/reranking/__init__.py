"""The reranking bento: a query and documents to relevance scores."""
