"""Back ends of data nodes: what keeps bytes and names."""
