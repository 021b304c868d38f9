"""Hosts: what runs a strategy's passes in a trainer or in a training loop of one's own."""
