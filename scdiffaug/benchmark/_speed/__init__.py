"""How fast ours and its peers are, measured in turn."""
