"""Reference values in the operator's hands: made from nodes, logs, lists, images and packages; compared; moved on."""
