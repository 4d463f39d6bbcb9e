"""How fast scDiffAug and its peers are, measured in turn."""
