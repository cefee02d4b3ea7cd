"""Data nodes: containers of versioned objects, kept by a back end."""
