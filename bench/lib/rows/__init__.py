"""The rows of the "One node" table: each module measures one or two of them beside what they are compared with."""
