"""wanc's version: of the package, and of the runtime that a bundle holds."""

VERSION = "0.1.0"
