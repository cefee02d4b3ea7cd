"""The commands of `alpyne`, each loaded when it is used; `root` is the group of all."""
