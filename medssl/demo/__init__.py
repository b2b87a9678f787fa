"""Synthetic phantoms of the four tasks, and the small bundles built from them, which work offline."""
