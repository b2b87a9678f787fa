"""The cards of a bundle: its model card and the card of its cases."""
