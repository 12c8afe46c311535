"""What finance reads: views, and the data dictionary generated from them."""
