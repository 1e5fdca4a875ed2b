"""Benchmarks: wanc beside its peers, on the same model, inputs and threads, interleaved in one run.

This room knows torch, because some of the peers are torch's.
"""
