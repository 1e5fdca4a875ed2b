"""Results on disk: the content-addressed store of a build's stages, and the sealing of bundles.

Everything here holds after a crash at any moment: either the old state or the new one, never a mixture.
"""
