"""The MongoDB back end: bytes in GridFS, names in documents, every change in one transaction.

settings.py    options of the administrator: URI, database, TLS
probing.py     what a server says to a stranger: unsafe and unfit ones are refused
link.py        the connection: concerns, deadlines, errors in words
ownership.py   whose database it is, and the number of its last commit
schema.py      collections, indexes, documents as values
staging.py     bodies on their way in, in several inserts at once
changes.py     what a batch of changes makes of the documents
commits.py     transactions, one at a time, and their outcome when a server is lost
content.py     bodies on their way out, checked
collector.py   chunks that no version names
backend.py     the seam of all back ends, from these parts
"""

from alpyne_grid.nodes.data.backends.mongo.backend import MongoBackend

__all__ = ["MongoBackend"]
