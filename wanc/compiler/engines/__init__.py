"""Engines: how the program becomes files that one backend runs. One file per engine."""
