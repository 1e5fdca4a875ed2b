"""Where graphs come from: the checkpoints that wanc reads, and the torch modules that their graphs are traced from.

Reading a checkpoint's layout needs no torch; only the modules that define graphs import it.
"""
