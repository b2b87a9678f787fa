"""Self-supervised pretraining, or adaptation, of an encoder on unlabelled images."""
