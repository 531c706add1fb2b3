"""The commands of `usercore`, a module a group; `usercore.cli` finds them by name."""
