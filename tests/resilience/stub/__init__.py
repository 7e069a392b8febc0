"""A bento as an operator runs it, around a model that is arithmetic: what the fault suite kills, stops and slows."""
