"""The landing zone: which files there are, which event days each holds, and which are loaded."""
