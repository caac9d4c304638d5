"""A model of the saga, checked whole: see `search.py` for what is searched and why it is done so."""
