"""What the tools do, one module a concept. Runs in the tool child: the standard library only."""
