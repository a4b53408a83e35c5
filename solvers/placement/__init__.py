"""Placement: what is cached where and moved, given the rates of the messages."""
