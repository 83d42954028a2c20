"""What is wrong with a machine and its domains: facts, checks over them, and the command that mends each finding."""
