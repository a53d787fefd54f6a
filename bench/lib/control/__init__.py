"""What `bench/control` is made of: the load program's phases, cases in process and over sockets, and their tables."""
