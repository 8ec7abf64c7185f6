"""Talk to the models of a run: one base in a process of its own, its adapters switched, spoken to in lines of JSON."""
