"""Reads token ids of OpenAI's cl100k_base vocabulary, offline; see NOTICE."""

from gateway.apis.openai.cl100k.vocabulary import Vocabulary, vocabulary

__all__ = ["Vocabulary", "vocabulary"]
