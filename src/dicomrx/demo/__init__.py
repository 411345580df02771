"""The product's own show: the whole pipeline on this machine."""
