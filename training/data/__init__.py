"""Corpora readers, the degradation simulator and labelled sets."""
