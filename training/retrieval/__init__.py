"""Retrieval: from a whole catalogue to the few hundred items of a user that are worth ranking."""
